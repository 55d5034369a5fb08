"""Where images are: opens the right kind of source for a URL, and joins several behind one."""

import sys
import threading
from collections.abc import Iterator

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import StoreUrlError
from tasks.retrying import SourceError, Unaddressable
from tasks.sources.base import Enter, ImageSource, Skip, every_folder, root_of
from tasks.sources.files import FileSource
from tasks.sources.objects import ObjectSource

__all__ = ["Enter", "ImageSource", "Skip", "Sources", "every_folder", "open_source"]

OBJECT_STORES = ("s3", "gs", "az", "memory")


def open_source(url: str, credentials: str | None) -> ImageSource:
    """A source for url and everything else under the same root (bucket, host, machine).

    credentials: a NAME whose options are the environment variables PRELABEL_<NAME>_<OPTION>; None: the provider's default chain. Reaches for nothing yet.
    Raises SourceError for a URL that nothing here can read, CredentialsError for a name without variables.
    """
    scheme = url.partition("://")[0]
    if "://" not in url:
        raise SourceError(f"{url}: not a URL; a path is given as file:///folder, a bucket as s3://bucket/folder")
    if scheme == "file":
        return FileSource()
    if scheme in OBJECT_STORES:
        return ObjectSource(root_of(url), credentials)
    if scheme in ("http", "https"):
        from tasks.sources.web import WebSource  # late, as the next: few jobs need their clients

        return WebSource(credentials)
    from tasks.sources.filesystems import FilesystemSource

    return FilesystemSource(root_of(url), credentials)


class Sources:
    """Every source a job touches behind one: each key goes to the source of its root, opened at first use. Safe to share between threads."""

    def __init__(self, credentials: str | None) -> None:
        self._credentials = credentials
        self._opened: dict[str, ImageSource] = {}
        self._lock = threading.Lock()

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        return self._source_of(prefix).list(prefix, skip, enter)

    def describe(self, key: str) -> tuple[str, int]:
        return self._source_of_key(key).describe(key)

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        return self._source_of_key(record.key).read(record, max_bytes)

    def _source_of_key(self, key: str) -> ImageSource:
        try:
            return self._source_of(key)
        except (SourceError, StoreUrlError) as error:  # a mistyped line of a key list; the other lines are good
            raise Unaddressable(str(error)) from error

    def _source_of(self, url: str) -> ImageSource:
        root = root_of(url)
        with self._lock:
            source = self._opened.get(root)
            if source is None:
                source = self._opened[root] = open_source(url, self._credentials)
        return source
