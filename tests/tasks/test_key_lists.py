from pathlib import Path

import obstore
import polars as pl
import pytest

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import open_store
from tasks.key_lists import KeyListError, read_key_list


def read(url: str) -> tuple[list[ImageRecord], int]:
    duplicates: list[None] = []
    records = list(read_key_list(url, None, lambda: duplicates.append(None)))
    return records, len(duplicates)


@pytest.mark.parametrize("column", ["image_key", "key"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_lists_are_sorted_and_deduplicated(tmp_path: Path, kind: str, column: str):
    keys = ["s3://b/z.jpg", "s3://b/a/x.jpg", "s3://b/a-1.jpg", "s3://b/ä, %20#.jpg", None, "s3://b/z.jpg", ""]
    table = pl.DataFrame({column: keys, "other": list(range(len(keys)))})
    path = tmp_path / f"keys.{kind}"
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    url = f"file://{path}"
    records, duplicates = read(url)
    expected = ["s3://b/a-1.jpg", "s3://b/a/x.jpg", "s3://b/z.jpg", "s3://b/ä, %20#.jpg"]
    assert records == [ImageRecord(key, "", 0, url) for key in expected]
    assert duplicates == 1


def test_etags_and_sizes_are_taken(tmp_path: Path):
    path = tmp_path / "keys.csv"
    path.write_text('key,etag,size\ns3://b/2.jpg,"""abc""",17\ns3://b/1.jpg,0123,\n')
    records, _ = read(f"file://{path}")
    assert [(r.key, r.etag, r.size_bytes) for r in records] == [
        ("s3://b/1.jpg", "0123", 0),
        ("s3://b/2.jpg", "abc", 17),
    ]


def test_paths_are_taken_from_the_lists_folder(tmp_path: Path):
    path = tmp_path / "keys.csv"
    path.write_text("key\npictures/a b.jpg\n/data/b.jpg\n../c.jpg\n")
    records, _ = read(f"file://{path}")
    expected = [f"file://{tmp_path}/pictures/a b.jpg", "file:///data/b.jpg", f"file://{tmp_path.parent}/c.jpg"]
    assert [r.key for r in records] == sorted(expected)


def test_a_list_in_an_object_store():
    obstore.put(open_store("memory://key-lists", None), "lists/today.csv", b"key\ns3://b/1.jpg\n")
    records, _ = read("memory://key-lists/lists/today.csv")
    assert [r.key for r in records] == ["s3://b/1.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"picture,etag\na.jpg,1\n", "needs a column image_key or key; it has picture, etag"),
        ("a.csv", b"", "is no CSV file"),
        ("a.parquet", b"key\ns3://b/a.jpg\n", "is no Parquet file"),
        ("a.csv", b"key,size\ns3://b/a.jpg,large\n", "cannot be read"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KeyListError, match=message):
        read(f"file://{tmp_path / name}")


def test_a_missing_list_is_said(tmp_path: Path):
    with pytest.raises(KeyListError, match=r"source\.key_list"):
        read(f"file://{tmp_path}/none.csv")
    with pytest.raises(KeyListError, match=r"source\.key_list"):
        read("memory://key-lists/none.csv")


def test_a_relative_key_in_a_remote_list_is_refused():
    obstore.put(open_store("memory://key-lists", None), "relative.csv", b"key\npictures/1.jpg\n")
    with pytest.raises(KeyListError, match="is no URL"):
        read("memory://key-lists/relative.csv")
