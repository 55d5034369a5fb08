"""The end of each shard: an attempt's files and then one marker, created once. Knows nothing of plans beyond a run's id and a shard's index."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import pyarrow as pa
from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.json_records import decode_record, encode_record
from sinks.dataset.parquet import put_table
from sinks.dataset.records import Marker, Shard
from sinks.dataset.store import create_once, read_all


def commit(
    store: ObjectStore, shard: Shard, attempt: str, tables: Mapping[str, pa.Table], counts: Mapping[str, int]
) -> tuple[Marker, bool]:
    """The files of this attempt, then the marker. Returns the marker that stands, and whether it is this attempt's.

    The same attempt may be committed again after an error, even with other rows: the marker names the files of one of the calls.
    """
    path = layout.marker_path(shard.run_id, shard.index)
    standing = read(store, path)
    if standing is None:
        files = tuple(
            put_table(store, table, rows, partial(layout.file_path, shard.run_id, shard.index, attempt, table))
            for table, rows in tables.items()
        )
        mine = Marker(shard.name, attempt, files, dict(counts))
        standing = decode_record(Marker, create_once(store, path, encode_record(mine)), path)
    return standing, standing.attempt == attempt


def abandon(store: ObjectStore, shard: Shard, why: str) -> tuple[Marker, bool]:
    """Ends the shard without files, so that a late worker loses. Returns the marker that stands, and whether the shard is abandoned."""
    path = layout.marker_path(shard.run_id, shard.index)
    mine = Marker(shard.name, f"abandoned-{secrets.token_hex(4)}", (), {}, abandoned=True, why=why)
    standing = decode_record(Marker, create_once(store, path, encode_record(mine)), path)
    return standing, standing.abandoned


def read(store: ObjectStore, path: str) -> Marker | None:
    """The marker at path; None: the shard is not done."""
    try:
        return decode_record(Marker, bytes(store.get(path).bytes()), path)
    except FileNotFoundError:
        return None


def marked_indices(store: ObjectStore, run_id: str) -> list[int]:
    """The run's shards that are done or abandoned, ascending."""
    listed = store.list(layout.markers_folder(run_id))
    return sorted(layout.number_in(meta["path"]) for batch in listed for meta in batch)


def read_indices(store: ObjectStore, run_id: str, indices: Iterable[int]) -> Iterator[Marker]:
    """The markers of these shards, in the given order."""
    paths = [layout.marker_path(run_id, index) for index in indices]
    for path, data in zip(paths, read_all(store, paths)):
        yield decode_record(Marker, data, path)
