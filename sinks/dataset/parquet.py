"""The dataset's Parquet files: a table's bytes, and reading one by ranges from any store. Knows nothing of runs."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from obstore.store import ObjectStore

from model.annotations import SCHEMA_VERSION, SCHEMA_VERSION_KEY, schema
from sinks.dataset.records import FileEntry

# Sorted by key an image's rows lie together; 128 k rows a group read fastest (docs/dataset.md).
ROW_GROUP_ROWS = 131_072
COMPRESSION, COMPRESSION_LEVEL = "zstd", 3
_ORDER = {
    "images": ("image_key", "task", "prompt_index"),
    "annotations": ("image_key", "task", "prompt_index", "instance"),
    "checks": ("image_key", "task", "prompt_index", "source"),
}
WHOLE_FILE_BYTES = 16 << 20  # a shard's file; larger ones (compacted) are read in batches
BATCH_ROWS = 16_384


class DamagedFileError(RuntimeError):
    """A file whose bytes are not those its manifest names."""


class SchemaVersionError(RuntimeError):
    """A file of a schema version this program cannot read."""


def encode_table(table: str, rows: pa.Table) -> bytes:
    """rows in the schema of table ("images", "annotations", "checks"), sorted by image_key, as a Parquet file.

    Columns may come in any order; raises ValueError for a missing one or a type that does not cast safely.
    """
    target = schema(table)
    missing = [name for name in target.names if name not in rows.column_names]
    if missing:
        raise ValueError(f"table {table}: columns {missing} are missing")
    keys = [(name, "ascending") for name in sort_columns(table)]
    try:
        return write_parquet(rows.select(target.names).cast(target).sort_by(keys))
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"table {table}: {error}") from error


def sort_columns(table: str) -> tuple[str, ...]:
    """The columns a file of table is sorted by, and any batch that readers get."""
    return _ORDER[table]


def write_parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        rows, sink, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL, row_group_size=ROW_GROUP_ROWS
    )
    return sink.getvalue()


def put_table(store: ObjectStore, table: str, rows: pa.Table, path_of: Callable[[str], str]) -> FileEntry:
    """Writes rows to the path that path_of gives for the contents' hash, and says what was written."""
    data = encode_table(table, rows)
    digest = hashlib.sha256(data).hexdigest()
    path = path_of(digest)
    store.put(path, data)
    keys = rows["image_key"]
    first, last = min_max(keys) if rows.num_rows else ("", "")
    return FileEntry(table, path, len(data), digest, rows.num_rows, first, last)


def min_max(keys: pa.ChunkedArray) -> tuple[str, str]:
    """The smallest and the largest of at least one key, by their UTF-8 bytes."""
    order = pc.min_max(keys).as_py()
    return order["min"], order["max"]


def read_rows(store: ObjectStore, entry: FileEntry, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """A committed file's rows in order: in one piece for a shard's file, in batches for a larger one. columns None: all.

    Raises DamagedFileError where a whole file's hash is not the manifest's, and SchemaVersionError.
    """
    source: io.BytesIO | RangeReader
    small = entry.size_bytes <= WHOLE_FILE_BYTES
    if small and columns is None:
        data = bytes(store.get(entry.path).bytes())
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise DamagedFileError(
                f"{entry.path}: these {len(data)} bytes are not the {entry.size_bytes} that were committed"
            )
        source = io.BytesIO(data)
    else:
        source = RangeReader(store, entry.path, entry.size_bytes)
    file = pq.ParquetFile(source, pre_buffer=True)
    check_version(file.schema_arrow, entry.path)
    names = list(columns) if columns is not None else None
    if small:
        yield file.read(columns=names, use_threads=False)
        return
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False):
        yield pa.Table.from_batches([batch])


def check_version(found: pa.Schema, path: str) -> None:
    """Raises SchemaVersionError unless the file's schema version is one this program reads."""
    version = (found.metadata or {}).get(SCHEMA_VERSION_KEY)
    if version is None:
        raise SchemaVersionError(
            f"{path}: no {SCHEMA_VERSION_KEY.decode()} in its metadata: prelabel has not written it"
        )
    if not version.isdigit() or int(version) != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version.decode()}, this prelabel reads version {SCHEMA_VERSION}: update prelabel"
        )


class RangeReader(io.RawIOBase):
    """An object as a seekable binary file of known size; each read is one ranged GET."""

    def __init__(self, store: ObjectStore, path: str, size_bytes: int) -> None:
        super().__init__()
        self._store, self._path, self._size, self._at = store, path, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def size(self) -> int:
        """pyarrow asks for it by this name."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        data = bytes(self._store.get_range(self._path, start=self._at, end=end))
        self._at = end
        return data
