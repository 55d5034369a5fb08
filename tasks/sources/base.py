"""What every source of images is, and the pieces they share: keys, versions, and walking folders in the order of keys. Reads nothing itself."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sinks.dataset.records import ImageRecord

Skip = Callable[[str], None]  # called with the reason each time something under a prefix cannot be an image
Enter = Callable[[str], bool]  # whether a folder, by its path below the prefix with a slash at its end, is wanted


def every_folder(path: str) -> bool:
    """Enters all."""
    return True


class ImageSource(Protocol):
    """A place that holds images. A key is a full URL, taken literally: a space, % or # in it stands for itself. All methods may be called from any thread.

    A prefix is a folder, with or without a slash at its end, or the key of a single object.
    """

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        """Everything under a prefix, sorted by key (bytewise on its UTF-8). etag is "" where the listing has none.

        A source that walks folders leaves those alone that enter does not want, so that one which cannot be read need not end the listing; others may
        list what is in them. Raises SourceError where the prefix cannot be listed, EmptySource where there is nothing.
        """
        ...

    def describe(self, key: str) -> tuple[str, int]:
        """etag and size in bytes, without reading the object. Raises StorageError."""
        ...

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        """The object's bytes and their etag, which is record.etag unless that is "".

        Raises Vanished, Changed, Unaddressable, AccessDenied, TransientStorageError, and TooLarge without having held much more than max_bytes.
        """
        ...


def root_of(url: str) -> str:
    """scheme://bucket of a URL; for files file://."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def path_of(url: str) -> str:
    """What stands behind the root and its slash, without a slash at its end."""
    return url.partition("://")[2].partition("/")[2].rstrip("/")


def bare_etag(etag: str) -> str:
    """An etag without the quotes that some listings and headers put around it, so that versions compare equal. A weak one keeps its W/."""
    return etag[1:-1] if len(etag) >= 2 and etag.startswith('"') and etag.endswith('"') else etag


def quoted_etag(etag: str) -> str:
    """An etag as the header If-Match wants it."""
    return etag if etag.startswith("W/") else f'"{etag}"'


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder. identity: the same for the same folder reached by another way, None where that cannot happen."""

    name: str
    is_folder: bool
    etag: str = ""
    size_bytes: int = 0
    identity: object = None


def walk_in_order(
    folder: str, entries_of: Callable[[str], Iterable[Entry]], skip: Skip, enter: Enter, *, identity: object = None
) -> Iterator[tuple[str, Entry]]:
    """The files under a folder as (path relative to it, entry), sorted by path; one folder's entries and its ancestors' are in memory at once.

    entries_of(path) lists one folder, path being folder joined with what is below it. A folder that enter does not want, and one
    inside itself (a link back up), is skipped and counted; identity is folder's own.
    """
    # A folder sorts as its name with the slash its keys have: a-1.jpg, a/x.jpg and a.jpg are in this order.
    stack = [("", _sorted(entries_of(folder)), identity)]
    while stack:
        path, entries, _ = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif not entry.is_folder:
            yield path + entry.name, entry
        elif not enter(f"{path}{entry.name}/"):
            skip("excluded folder")
        elif entry.identity is not None and any(entry.identity == above for _, _, above in stack):
            skip("link back to a parent folder")
        else:
            inside = path + entry.name
            stack.append((f"{inside}/", _sorted(entries_of(f"{folder.rstrip('/')}/{inside}")), entry.identity))


def _sorted(entries: Iterable[Entry]) -> Iterator[Entry]:
    # Python compares strings by code points, which is the order of their UTF-8 bytes.
    return iter(sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_folder else entry.name))
