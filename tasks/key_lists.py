"""Lists of image keys that a user keeps as a CSV or Parquet file, as sorted records. Looks no key up."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import obstore
import polars as pl
import pyarrow.parquet as pq
from obstore.exceptions import BaseError

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import absolute_url, credential_options, open_store
from tasks.ordering import sort_by_key
from tasks.retrying import SourceError, first_line
from tasks.sources import OBJECT_STORES
from tasks.sources.base import bare_etag, path_of, root_of

KEY_COLUMNS = ("image_key", "key")
ROWS_AT_ONCE = 10_000


class KeyListError(SourceError):
    """A key list that cannot be read as one; the message says what would be right."""


def read_key_list(url: str, credentials: str | None, on_duplicate: Callable[[], None]) -> Iterator[ImageRecord]:
    """The list's keys as records sorted by key, each once, source being the list's URL; a repeated key goes to on_duplicate, its first row counts.

    etag is "" and the size 0 where the list has none. A key that is a path is taken from the list's own folder, if the list is a file of this machine.
    Raises KeyListError.
    """
    with tempfile.TemporaryDirectory(prefix="prelabel-keys-") as folder:
        last = None
        for record in sort_by_key(_records(url, _local_copy(url, credentials, Path(folder)), Path(folder))):
            if record.key == last:
                on_duplicate()
            else:
                last = record.key
                yield record


def _records(url: str, path: Path, folder: Path) -> Iterator[ImageRecord]:
    """The list's rows as they stand. folder: for a copy that can be read a few rows at a time, whatever the list's own format."""
    plain = folder / "rows.parquet"
    try:
        _rows(url, path).sink_parquet(plain, row_group_size=ROWS_AT_ONCE)
    except pl.exceptions.PolarsError as error:
        raise KeyListError(f"source.key_list: {url} cannot be read: {first_line(error)}") from error
    beside = Path(os.path.dirname(url.removeprefix("file://"))) if url.startswith("file://") else None
    for batch in pq.ParquetFile(plain).iter_batches(ROWS_AT_ONCE):
        for key, etag, size in zip(*(batch.column(name).to_pylist() for name in ("key", "etag", "size")), strict=True):
            if "://" not in key and beside is None:
                raise KeyListError(
                    f"source.key_list: {url} holds {key!r}, which is no URL: a key is a full one, as in s3://bucket/a.jpg"
                )
            yield ImageRecord(absolute_url(key, beside or Path()), bare_etag(etag), size, url)


def _rows(url: str, path: Path) -> pl.LazyFrame:
    """Columns key, etag and size of the list, empty keys left out."""
    parquet = url.lower().endswith((".parquet", ".pq"))
    try:
        # Without inference: a key that looks like a number is still text.
        table = pl.scan_parquet(path) if parquet else pl.scan_csv(path, infer_schema=False)
        columns = table.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise KeyListError(
            f"source.key_list: {url} is no {'Parquet' if parquet else 'CSV'} file: {first_line(error)}"
        ) from error
    key = next((name for name in KEY_COLUMNS if name in columns), None)
    if key is None:
        raise KeyListError(
            f"source.key_list: {url} needs a column {' or '.join(KEY_COLUMNS)}; it has {', '.join(columns)}"
        )
    return table.select(
        pl.col(key).cast(pl.String).alias("key"),
        (pl.col("etag").cast(pl.String).fill_null("") if "etag" in columns else pl.lit("")).alias("etag"),
        (pl.col("size").cast(pl.Int64).fill_null(0) if "size" in columns else pl.lit(0, pl.Int64)).alias("size"),
    ).filter(pl.col("key").is_not_null() & (pl.col("key") != ""))


def _local_copy(url: str, credentials: str | None, folder: Path) -> Path:
    """The list as a file of this machine: itself, or a copy under folder."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    copy = folder / "list"
    try:
        with copy.open("wb") as target:
            if url.partition("://")[0] in OBJECT_STORES:
                for chunk in obstore.get(open_store(root_of(url), credentials), path_of(url)).stream():
                    target.write(chunk)
            else:
                with fsspec.open(url, "rb", **credential_options(credentials)) as file:
                    shutil.copyfileobj(file, target)
    except (BaseError, OSError, ValueError, ImportError) as error:
        raise KeyListError(f"source.key_list: {url} cannot be read: {first_line(error)}") from error
    return copy
