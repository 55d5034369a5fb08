"""What each sink was last given: a record a sink in the output, so that an unchanged view is not pushed again. Saves work only; a push is idempotent."""

import hashlib
from dataclasses import dataclass

from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.json_records import decode_record, encode_record


@dataclass(frozen=True, slots=True)
class PushRecord:
    """A finished push. settings: the sink's own, as JSON; view: the runs it was given, oldest promotion first; objects: what to find under url."""

    sink: str
    url: str
    settings: str
    view: tuple[str, ...]
    at: str  # UTC, ISO 8601
    images: int
    annotations: int
    objects: tuple[str, ...]


def read_push(store: ObjectStore, sink: str, url: str) -> PushRecord | None:
    """The last finished push to that sink at that url; None: there was none. store: rooted at the output."""
    path = layout.push_path(sink, _digest(url))
    try:
        return decode_record(PushRecord, bytes(store.get(path).bytes()), path)
    except FileNotFoundError:
        return None


def write_push(store: ObjectStore, record: PushRecord) -> None:
    """Replaces the sink's record. Of two pushes at once the later one's stands; both were whole."""
    store.put(layout.push_path(record.sink, _digest(record.url)), encode_record(record))


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
