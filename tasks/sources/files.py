"""Images in folders of this machine. The version of a file is its size and modification time."""

import os
import stat
import sys
from collections.abc import Iterator

from sinks.dataset.records import ImageRecord
from tasks.retrying import (
    Changed,
    EmptySource,
    SourceError,
    StorageError,
    TooLarge,
    Vanished,
    os_error_meaning,
    retry_transient,
)
from tasks.sources.base import Enter, Entry, Skip, every_folder, walk_in_order


class FileSource:
    """Files by their file:// URLs, links followed."""

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        path = _path(prefix)
        try:
            status = os.stat(path)
        except OSError as error:
            raise _cannot_list(prefix, error) from error
        if stat.S_ISREG(status.st_mode):
            yield ImageRecord(f"file://{path}", _etag(status), status.st_size, prefix)
            return
        nothing = True
        walk = walk_in_order(path, lambda folder: _entries(folder, skip), skip, enter, identity=_identity(status))
        for below, entry in walk:
            nothing = False
            yield ImageRecord(f"file://{path.rstrip('/')}/{below}", entry.etag, entry.size_bytes, prefix)
        if nothing:
            raise EmptySource(f"{prefix}: the folder is empty, or all there is in it is excluded")

    def describe(self, key: str) -> tuple[str, int]:
        try:
            status = os.stat(_path(key))
        except OSError as error:
            raise os_error_meaning(error) from error
        return _etag(status), status.st_size

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        return retry_transient(lambda: _read(_path(record.key), record.etag, max_bytes))


def _read(path: str, etag: str, max_bytes: int) -> tuple[bytes, str]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Vanished  # a pipe would block for ever
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            before = _etag(status)
            if etag and before != etag:
                raise Changed
            if status.st_size > max_bytes:
                raise TooLarge(status.st_size, max_bytes)
            data = file.readall()
            if _etag(os.fstat(file.fileno())) != before:
                raise Changed
    except OSError as error:
        raise os_error_meaning(error) from error
    return data, before


def _entries(folder: str, skip: Skip) -> Iterator[Entry]:
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        return  # removed while its parent was being listed
    except OSError as error:
        raise _cannot_list(f"file://{folder}", error) from error
    with found:
        for item in found:
            try:
                status = item.stat()
                item.name.encode()
            except UnicodeEncodeError:
                skip("name is not UTF-8")
            except FileNotFoundError:
                skip("broken link" if item.is_symlink() else "gone while listing")
            except OSError as error:
                if item.is_symlink():
                    skip("broken link")  # a ring of links, or one into a place we may not look
                else:
                    raise _cannot_list(f"file://{item.path}", error) from error
            else:
                if stat.S_ISDIR(status.st_mode):
                    yield Entry(item.name, True, identity=_identity(status))
                elif stat.S_ISREG(status.st_mode):
                    yield Entry(item.name, False, _etag(status), status.st_size)
                else:
                    skip("neither file nor folder")


def _path(url: str) -> str:
    return "/" + url.removeprefix("file://").strip("/")


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _cannot_list(url: str, error: OSError) -> SourceError:
    meaning: StorageError = os_error_meaning(error)
    if isinstance(meaning, Vanished):
        return SourceError(
            f"{url}: there is no such file or folder. Check source.prefixes; relative paths count from the job file's folder."
        )
    return SourceError(
        f"{url}: cannot be listed ({meaning}). Nothing was planned, so that no image is taken for gone. A folder that is not wanted can be left out "
        "by source.exclude."
    )
