"""The small frozen records that travel between listing, planning, labelling and committing. Knows no store and no table library."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image as listed. key: its URL (s3://bucket/key, file:///path); etag: the store's, for files size and mtime; source: the job's prefix it was found under."""

    key: str
    etag: str
    size_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work and of commitment. images are sorted by key. name is unique for ever: it contains the run's id."""

    name: str
    run_id: str
    index: int
    images: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to label, stored before labelling begins. number: its place among the plans of its fingerprint, from 1; a run is its plan and its states."""

    run_id: str
    fingerprint: str
    number: int
    shards: int
    images: int
    folder: str  # where the shard lists lie, relative to the output
    created_at: str  # UTC, ISO 8601
    job: str  # the job as JSON, without secrets
    facts: dict[str, str]  # model, revision, engine, versions, decoding fingerprint …: what the run's row records
    complete_listing: bool  # False for a pilot (--limit) or a retry: absence from it means nothing


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A committed file. path is relative to the output."""

    table: str
    path: str
    size_bytes: int
    sha256: str
    rows: int
    first_key: str  # smallest and largest image_key in it; "" where it has no rows
    last_key: str


@dataclass(frozen=True, slots=True)
class Marker:
    """The end of a shard: written once, never changed. Names the winning attempt's files, or says the shard was abandoned (files empty)."""

    shard: str
    attempt: str
    files: tuple[FileEntry, ...]
    counts: dict[
        str, int
    ]  # images, answers (image × prompt), of these ok, truncated, malformed, unreadable, failed; annotations, category:<name> …
    abandoned: bool = False
    why: str = ""  # of an abandoned shard


@dataclass(frozen=True, slots=True)
class RunState:
    """One entry of the output's log of states, in the log's order."""

    order: int
    run_id: str
    state: str  # planned | staged | promoted | held | discarded
    at: str  # UTC, ISO 8601
    who: str
    why: str
    details: dict[str, object]
