"""Images in whatever else fsspec reaches (sftp, ftp, hdfs, webdav …): the slow and general way. The version is what the filesystem reports of it."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import credential_options
from tasks.retrying import (
    Changed,
    EmptySource,
    SourceError,
    TooLarge,
    TransientStorageError,
    first_line,
    os_error_meaning,
    retry_transient,
)
from tasks.sources.base import Enter, Entry, Skip, bare_etag, every_folder, walk_in_order

Result = TypeVar("Result")

# What the various filesystems call the version of a file, the best first.
VERSIONS = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "modified", "updated")


class FilesystemSource:
    """One host or bucket of an fsspec filesystem. root: scheme://host. A name of credentials holds the filesystem's own options (username, password …)."""

    def __init__(self, root: str, credentials: str | None) -> None:
        try:
            self._files, _ = fsspec.core.url_to_fs(root, **credential_options(credentials))
        except (ValueError, ImportError, TypeError, OSError) as error:
            raise SourceError(f"{root}: cannot be opened: {first_line(error)}") from error

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        try:
            status = self._files.info(self._inner(prefix))
        except FileNotFoundError as error:
            raise SourceError(f"{prefix}: there is no such file or folder. Check source.prefixes.") from error
        except OSError as error:
            raise SourceError(f"{prefix}: cannot be listed: {first_line(error)}") from error
        if status["type"] == "file":
            yield ImageRecord(prefix, _etag(status), _size(status), prefix)
            return
        nothing = True
        try:
            walk = walk_in_order(self._inner(prefix), lambda folder: self._entries(folder, skip), skip, enter)
            for below, entry in walk:
                nothing = False
                yield ImageRecord(f"{prefix.rstrip('/')}/{below}", entry.etag, entry.size_bytes, prefix)
        except OSError as error:
            raise SourceError(f"{prefix}: cannot be listed: {first_line(error)}") from error
        if nothing:
            raise EmptySource(f"{prefix}: the folder is empty, or all there is in it is excluded")

    def describe(self, key: str) -> tuple[str, int]:
        status = _asked(lambda: self._files.info(self._inner(key)))
        return _etag(status), _size(status)

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        return retry_transient(lambda: self._read(record, max_bytes))

    def _read(self, record: ImageRecord, max_bytes: int) -> tuple[bytes, str]:
        before, size_bytes = self.describe(record.key)
        if record.etag and before != record.etag:
            raise Changed
        if size_bytes > max_bytes:
            raise TooLarge(size_bytes, max_bytes)
        data: bytes = _asked(lambda: self._files.cat_file(self._inner(record.key)))
        if self.describe(record.key)[0] != before:
            raise Changed
        return data, before

    def _entries(self, folder: str, skip: Skip) -> Iterator[Entry]:
        for status in self._files.ls(folder, detail=True, refresh=True):
            name = status["name"].rstrip("/").rpartition("/")[2]
            if status["type"] == "directory":
                yield Entry(name, True)
            elif status["type"] == "file":
                yield Entry(name, False, _etag(status), _size(status))
            else:
                skip("neither file nor folder")

    def _inner(self, url: str) -> str:
        """The filesystem's own name of a URL: some keep the host in it, some drop it."""
        name: str = self._files._strip_protocol(url)
        return name


def _asked(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except OSError as error:
        raise os_error_meaning(error) from error
    except EOFError as error:  # a connection cut in the middle, in ftp and sftp
        raise TransientStorageError(f"storage failed: {type(error).__name__}") from error


def _etag(status: dict[str, Any]) -> str:
    version = next((status[name] for name in VERSIONS if status.get(name)), None)
    return bare_etag(version) if isinstance(version, str) else f"{_size(status)}-{version or 'size'}"


def _size(status: dict[str, Any]) -> int:
    return int(status.get("size") or 0)
