"""A run's manifest: one Parquet file with an entry for each of its files, so that readers list nothing. Knows nothing of states."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.parquet import DamagedFileError, write_parquet
from sinks.dataset.records import FileEntry, Marker

_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("first_key", pa.string(), nullable=False),
        pa.field("last_key", pa.string(), nullable=False),
    ]
)


def put_manifest(store: ObjectStore, run_id: str, markers: Iterable[Marker]) -> tuple[str, str, dict[str, int]]:
    """Writes the manifest of these markers' files, in the markers' order. Returns its path, its hash and the sums of the markers' counts.

    The name is made of the contents: whoever writes it again writes the same.
    """
    counts: Counter[str] = Counter()
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for marker in markers:
        counts.update(marker.counts)
        counts["abandoned_shards"] += marker.abandoned
        for file in marker.files:
            for name, value in asdict(file).items():
                columns[name].append(value)
    data = write_parquet(pa.table(columns, schema=_SCHEMA))
    digest = hashlib.sha256(data).hexdigest()
    path = layout.manifest_path(run_id, digest)
    store.put(path, data)
    return path, digest, dict(counts)


def read_manifest(store: ObjectStore, path: str, sha256: str) -> list[FileEntry]:
    """The run's files, sorted by key within each table. Raises DamagedFileError."""
    data = bytes(store.get(path).bytes())
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedFileError(f"{path}: not the manifest that the run's state names")
    columns = pq.read_table(io.BytesIO(data)).to_pydict()
    return [FileEntry(*values) for values in zip(*(columns[name] for name in _SCHEMA.names))]
