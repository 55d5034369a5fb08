"""Files made here and put into an object store whole or not at all. Knows nothing of what is in them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import obstore
from obstore.store import LocalStore, ObjectStore

Difference = Literal["added", "changed", "unchanged"]
_CHUNK_BYTES = 4 << 20


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a local file, a few MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def file_sha256(path: Path) -> str:
    """The SHA-256 of a local file, in hex."""
    digest = hashlib.sha256()
    for chunk in read_chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def stored_size(store: ObjectStore, path: str) -> int | None:
    """The size of an object in bytes; None: there is none."""
    try:
        return obstore.head(store, path)["size"]
    except FileNotFoundError:
        return None


def compare_with_stored(store: ObjectStore, path: str, local: Path) -> Difference:
    """How putting local at path would change the store. Reads the object only where the sizes are equal."""
    size = stored_size(store, path)
    if size is None:
        return "added"
    if size != local.stat().st_size:
        return "changed"
    digest = hashlib.sha256()
    for chunk in obstore.get(store, path).stream(min_chunk_size=_CHUNK_BYTES):
        digest.update(chunk)
    return "unchanged" if digest.hexdigest() == file_sha256(local) else "changed"


def put_file(store: ObjectStore, path: str, local: Path, content_type: str) -> None:
    """Puts a local file at path: readers see the former object until the last byte has arrived. Large files go up in parts."""
    # obstore's local files have no place for attributes and refuse them
    attributes = None if isinstance(store, LocalStore) else {"Content-Type": content_type}
    obstore.put(store, path, local, attributes=attributes)
