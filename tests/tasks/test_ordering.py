import random

import pytest

from sinks.dataset.records import ImageRecord
from tasks.ordering import MERGED_AT_ONCE, in_order, merge_by_key, sort_by_key
from tasks.retrying import SourceError

NAMES = ["a", "a ", "a-1.jpg", "a.jpg", "a/x.jpg", "a0", "A", "ä", "日本", "🙂", "\uffee", "z~", "a#", "a%20"]


def record(key: str, source: str = "s") -> ImageRecord:
    return ImageRecord(key, f"etag of {key}", len(key), source)


@pytest.mark.parametrize("at_once", [1, 2, 3, len(NAMES), 100])
def test_sorting_is_bytewise_in_memory_and_through_files(at_once: int):
    names = NAMES * 2
    random.Random(3).shuffle(names)
    ordered = list(sort_by_key(map(record, names), at_once=at_once))
    assert [r.key for r in ordered] == sorted(names, key=str.encode)
    assert set(ordered) == set(map(record, NAMES))


def test_sorting_more_than_one_batch_a_file():
    names = [f"{number:06}" for number in range(3 * MERGED_AT_ONCE)]
    random.Random(5).shuffle(names)
    assert [r.key for r in sort_by_key(map(record, names), at_once=MERGED_AT_ONCE + 7)] == sorted(names)


def test_sorting_nothing():
    assert list(sort_by_key([])) == []


def test_order_is_checked():
    assert list(in_order([record("a"), record("b")], "s3://bucket")) == [record("a"), record("b")]
    with pytest.raises(SourceError, match="s3://bucket: listed out of order"):
        list(in_order([record("a/x"), record("a-1")], "s3://bucket"))


def test_merging_keeps_the_first_streams_record():
    duplicates: list[ImageRecord] = []
    streams = [
        iter([record("b", "first"), record("d", "first")]),
        iter([record("a", "second"), record("b", "second")]),
        iter([record("b", "third")]),
    ]
    merged = list(merge_by_key(streams, duplicates.append))
    assert [(r.key, r.source) for r in merged] == [("a", "second"), ("b", "first"), ("d", "first")]
    assert [(r.key, r.source) for r in duplicates] == [("b", "second"), ("b", "third")]


def test_merging_nothing():
    assert list(merge_by_key([], print)) == []
