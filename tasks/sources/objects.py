"""Images in object stores (s3, gs, az, memory) through obstore, which retries by itself. The version of an object is its etag."""

import os
import sys
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import credential_options, open_store
from tasks.ordering import in_order, sort_by_key
from tasks.retrying import (
    AccessDenied,
    Changed,
    EmptySource,
    SourceError,
    StorageError,
    TooLarge,
    TransientStorageError,
    Unaddressable,
    Vanished,
    first_line,
)
from tasks.sources.base import Enter, Skip, bare_etag, every_folder, path_of, quoted_etag

LISTED_AT_ONCE = 1000  # objects handed over by obstore at a time: a page of S3's


class ObjectSource:
    """One bucket. root: scheme://bucket."""

    def __init__(self, root: str, credentials: str | None) -> None:
        self._root = root
        self._store = open_store(root, credentials)
        self._sorted = _lists_in_order(root, credentials)

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        listed = self._listed(prefix, skip)
        return in_order(listed, prefix) if self._sorted else sort_by_key(listed)

    def describe(self, key: str) -> tuple[str, int]:
        path = _address(key)
        try:
            meta = obstore.head(self._store, path)
        except (BaseError, OSError, ValueError) as error:
            raise _meaning(error) from error
        return _etag(meta), meta["size"]

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        path = _address(record.key)
        try:
            result = obstore.get(
                self._store, path, options={"if_match": quoted_etag(record.etag)} if record.etag else {}
            )
            if result.meta["size"] > max_bytes:
                raise TooLarge(result.meta["size"], max_bytes)
            return result.bytes().to_bytes(), _etag(result.meta)
        except (BaseError, OSError, ValueError) as error:
            raise _meaning(error) from error

    def _listed(self, prefix: str, skip: Skip) -> Iterator[ImageRecord]:
        path = path_of(prefix)
        nothing = True
        pages = obstore.list(self._store, prefix=path or None, chunk_size=LISTED_AT_ONCE)
        listed: Iterator[Any] = chain(chain.from_iterable(pages), [None])
        before = ""
        try:
            for meta, following in pairwise(listed):
                nothing = False
                if self._is_folder_marker(before, meta, following):
                    skip("folder marker")
                else:
                    yield ImageRecord(f"{self._root}/{meta['path']}", _etag(meta), meta["size"], prefix)
                before = meta["path"]
        except (InvalidPathError, ValueError) as error:
            raise SourceError(
                f"{prefix}: not every key there can be addressed: {first_line(error)}. Keys with control characters, empty folder names (//) or "
                "the folders . and .. have to be renamed, or left out: by listing the folders beside them, or by giving the images as source.key_list."
            ) from error
        except (BaseError, OSError) as error:
            raise self._cannot_list(prefix, error) from error
        if nothing:
            yield self._only_object(prefix, path)

    def _is_folder_marker(self, before: str, meta: Any, following: Any) -> bool:
        """Whether what was listed between these is the key of a folder, with a slash at its end, which obstore drops.

        It shows where the slash would sort it, behind a-1.jpg, in a store that sorts; anywhere, if it is empty and followed by what is in the folder.
        """
        folder = f"{meta['path']}/"
        misplaced = self._sorted and meta["path"] < before <= folder
        return misplaced or (meta["size"] == 0 and following is not None and following["path"].startswith(folder))

    def _only_object(self, prefix: str, path: str) -> ImageRecord:
        try:
            etag, size = self.describe(f"{self._root}/{path}")
        except StorageError as error:
            raise EmptySource(
                f"{prefix}: nothing is stored under it. A prefix is a folder or a whole key, not the beginning of a name: use source.include for those."
            ) from error
        return ImageRecord(f"{self._root}/{path}", etag, size, prefix)

    def _cannot_list(self, prefix: str, error: Exception) -> SourceError:
        # obstore has one exception for all that can befall a listing, but tells the causes apart for a single object.
        try:
            self.describe(f"{self._root}/.prelabel-is-this-bucket-there")
            cause: StorageError | None = None
        except StorageError as probe:
            cause = probe
        if isinstance(cause, AccessDenied):
            advice = "access is denied. Check credentials.source: these keys need permission to list the bucket."
        elif isinstance(cause, Vanished):
            advice = f"there is no bucket {self._root}, or these credentials may not list it. Check source.prefixes and credentials.source."
        else:
            advice = "the store cannot be reached. Check the endpoint, the region and the network."
        return SourceError(f"{prefix}: {advice} The store says: {first_line(error)}")


def _address(key: str) -> str:
    """The key as obstore wants it. Raises Unaddressable where it would refuse the key, or ask for another one: it drops slashes at the ends."""
    path = key.partition("://")[2].partition("/")[2]
    if any(part in ("", ".", "..") for part in path.split("/")) or any(
        ord(letter) < 32 or letter == "\x7f" for letter in path
    ):
        raise Unaddressable(
            "such a key cannot be addressed: it has control characters, an empty folder name (//) or the folder . or .., and has to be renamed"
        )
    return path


def _etag(meta: Any) -> str:
    etag = meta["e_tag"]
    return bare_etag(etag) if etag else f"{meta['size']}-{meta['last_modified'].isoformat()}"


def _meaning(error: Exception) -> StorageError:
    """What obstore's error means for one object. It has retried by then, so that whatever is not clear is transient."""
    if isinstance(error, PreconditionError):
        return Changed()
    if isinstance(error, FileNotFoundError):
        return Vanished()
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return AccessDenied(f"access denied: {first_line(error)}")
    return TransientStorageError(f"storage failed: {first_line(error)}")


def _lists_in_order(root: str, credentials: str | None) -> bool:
    """Whether the store promises keys in bytewise order. S3 itself does, but not for its directory buckets; of what else speaks S3, SeaweedFS lists a/x before a-1."""
    scheme, _, bucket = root.partition("://")
    if scheme != "s3":
        return True
    endpoints = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    named = any(option.removeprefix("aws_").startswith("endpoint") for option in credential_options(credentials))
    return not (named or bucket.endswith("--x-s3") or any(os.environ.get(name) for name in endpoints))
