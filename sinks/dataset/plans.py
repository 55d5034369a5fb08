"""Plans: a run's shards, stored before labelling, and the slot that decides which plan is a fingerprint's next. Knows nothing of markers."""

import io
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.json_records import decode_record, encode_record
from sinks.dataset.parquet import COMPRESSION, COMPRESSION_LEVEL
from sinks.dataset.records import ImageRecord, Plan, Shard
from sinks.dataset.store import create_once, read_all

_PART_SCHEMA = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


class UnsafeStoreError(RuntimeError):
    """The store lets a second writer replace a record that was created once: no run could be trusted there."""


@dataclass(frozen=True, slots=True)
class _Output:
    """output.json: says that this is a dataset, and of which layout."""

    layout_version: int
    created_at: str
    writer: str


class Plans:
    """The plans of one output. Safe to use from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._parts: dict[str, pq.ParquetFile] = {}
        self._lock = threading.Lock()

    def latest(self, fingerprint: str) -> Plan | None:
        """The fingerprint's newest plan."""
        paths = self._list(layout.slots_folder(fingerprint))
        return self._read(paths[-1:])[0] if paths else None

    def all(self) -> list[Plan]:
        """The output's plans in the order of their runs' ids."""
        return sorted(self._read(self._list(layout.PLANS)), key=lambda plan: plan.run_id)

    def _list(self, folder: str) -> list[str]:
        return sorted(meta["path"] for batch in self._store.list(folder) for meta in batch)

    def _read(self, paths: list[str]) -> list[Plan]:
        return [decode_record(Plan, data, path) for path, data in zip(paths, read_all(self._store, paths))]

    def create(
        self,
        fingerprint: str,
        number: int,
        shards: Iterable[Sequence[ImageRecord]],
        *,
        job: str,
        facts: Mapping[str, str],
        complete_listing: bool,
    ) -> tuple[Plan | None, bool]:
        """Writes the shard lists, then takes the slot. Returns the slot's plan and whether it is this one; (None, False) for no shards."""
        self._claim_output()
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        folder = layout.parts_folder(fingerprint, number, run_id)
        counted, images = 0, 0
        for part, group in enumerate(_grouped(shards)):
            data, shards_in_part, images_in_part = _encode_part(group)
            self._store.put(layout.part_path(folder, part), data)
            counted, images = counted + shards_in_part, images + images_in_part
        if not counted:
            return None, False
        created_at = now.isoformat(timespec="seconds")
        plan = Plan(
            run_id, fingerprint, number, counted, images, folder, created_at, job, dict(facts), complete_listing
        )
        record = encode_record(plan)
        path = layout.slot_path(fingerprint, number)
        stored = create_once(self._store, path, record)
        return (plan, True) if stored == record else (decode_record(Plan, stored, path), False)

    def read_shard(self, plan: Plan, index: int) -> Shard:
        """The plan's shard of that index, from 0. Raises IndexError beyond its shards, FileNotFoundError for a lost part."""
        if not 0 <= index < plan.shards:
            raise IndexError(f"plan {plan.run_id} has {plan.shards} shards, there is no shard {index}")
        part, group = divmod(index, layout.SHARDS_PER_PART)
        path = layout.part_path(plan.folder, part)
        with self._lock:  # a ParquetFile is not to be read from two threads
            if path not in self._parts:
                self._parts = {path: pq.ParquetFile(io.BytesIO(bytes(self._store.get(path).bytes())))}
            columns = self._parts[path].read_row_group(group, use_threads=False).to_pydict()
        images = tuple(
            map(ImageRecord, columns["image_key"], columns["etag"], columns["size_bytes"], columns["source"])
        )
        return Shard(layout.shard_name(plan.run_id, index), plan.run_id, index, images)

    def _claim_output(self) -> None:
        """Says in a new output that it is one, and finds out there whether the store refuses a second creation."""
        mine = _Output(layout.LAYOUT_VERSION, datetime.now(UTC).isoformat(timespec="seconds"), secrets.token_hex(8))
        record = encode_record(mine)
        stored = create_once(self._store, layout.OUTPUT, record)
        if stored != record:
            check_layout(stored)
            return
        second = encode_record(replace(mine, writer=secrets.token_hex(8)))
        if create_once(self._store, layout.OUTPUT, second) != record:
            raise UnsafeStoreError(
                "the store ignores conditional writes (If-None-Match): two workers could both win one shard. Use a store that honours them"
            )


class LayoutVersionError(RuntimeError):
    """The output was written in a layout this program does not know."""


def check_layout(stored: bytes) -> None:
    """stored: output.json. Raises LayoutVersionError for another layout than this program's."""
    found = decode_record(_Output, stored, layout.OUTPUT).layout_version
    if found != layout.LAYOUT_VERSION:
        raise LayoutVersionError(
            f"{layout.OUTPUT}: layout {found}, this prelabel knows {layout.LAYOUT_VERSION}: update prelabel"
        )


def _grouped(shards: Iterable[Sequence[ImageRecord]]) -> Iterator[Iterator[Sequence[ImageRecord]]]:
    """Shards in parts, each an iterator that has to be drained before the next."""
    source = iter(shards)
    for first in source:
        yield _part(first, source)


def _part(first: Sequence[ImageRecord], rest: Iterator[Sequence[ImageRecord]]) -> Iterator[Sequence[ImageRecord]]:
    yield first
    for _, shard in zip(range(layout.SHARDS_PER_PART - 1), rest):
        yield shard


def _encode_part(shards: Iterable[Sequence[ImageRecord]]) -> tuple[bytes, int, int]:
    sink = io.BytesIO()
    counted, images = 0, 0
    with pq.ParquetWriter(sink, _PART_SCHEMA, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL) as writer:
        for shard in shards:
            columns = [
                [image.key for image in shard],
                [image.etag for image in shard],
                [image.size_bytes for image in shard],
                [image.source for image in shard],
            ]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, _PART_SCHEMA)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=_PART_SCHEMA), row_group_size=max(1, len(shard)))
            counted, images = counted + 1, images + len(shard)
    return sink.getvalue(), counted, images
