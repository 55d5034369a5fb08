"""Streams of image records by key: checked, sorted with bounded memory, merged. Bytewise on the key's UTF-8, which is how Python compares strings."""

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from sinks.dataset.records import ImageRecord
from tasks.retrying import SourceError

SORTED_AT_ONCE = 200_000  # records in memory: about 100 MB; more go through temporary files
MERGED_AT_ONCE = 2_000  # records of each temporary file in memory while they are merged

_RUN = pa.schema([("key", pa.string()), ("etag", pa.string()), ("size_bytes", pa.int64()), ("source", pa.string())])


def in_order(records: Iterable[ImageRecord], what: str) -> Iterator[ImageRecord]:
    """The same records. Raises SourceError at the first that comes too early: every later step merges sorted streams and would lose images without a word."""
    last = ""
    for record in records:
        if record.key < last:
            raise SourceError(
                f"{what}: listed out of order ({record.key} after {last}). Keys that begin with a slash do this: list the folders beside them, or give the images as source.key_list"
            )
        last = record.key
        yield record


def sort_by_key(records: Iterable[ImageRecord], *, at_once: int = SORTED_AT_ONCE) -> Iterator[ImageRecord]:
    """The records sorted by key. Starts once all of them have been seen; beyond at_once of them through temporary files, deleted at the end."""
    stream = iter(records)
    run = _next_run(stream, at_once)
    if len(run) < at_once:
        yield from run
        return
    with tempfile.TemporaryDirectory(prefix="prelabel-sort-") as folder:
        runs: list[Path] = []
        while run:
            runs.append(_write_run(Path(folder) / str(len(runs)), run))
            run = _next_run(stream, at_once)
        yield from heapq.merge(*map(_read_run, runs), key=attrgetter("key"))


def merge_by_key(
    streams: Sequence[Iterator[ImageRecord]], on_duplicate: Callable[[ImageRecord], None]
) -> Iterator[ImageRecord]:
    """Sorted streams as one, each key once: the first stream's record wins, the others go to on_duplicate."""
    last = None
    for record in heapq.merge(*streams, key=attrgetter("key")):
        if record.key == last:
            on_duplicate(record)
        else:
            last = record.key
            yield record


def _next_run(records: Iterator[ImageRecord], at_once: int) -> list[ImageRecord]:
    return sorted(islice(records, at_once), key=attrgetter("key"))


def _write_run(path: Path, records: Sequence[ImageRecord]) -> Path:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _RUN, options=options) as writer:
        for start in range(0, len(records), MERGED_AT_ONCE):
            part = records[start : start + MERGED_AT_ONCE]
            columns = [[getattr(record, name) for record in part] for name in _RUN.names]
            writer.write_batch(pa.record_batch(columns, schema=_RUN))
    return path


def _read_run(path: Path) -> Iterator[ImageRecord]:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield ImageRecord(*row)
