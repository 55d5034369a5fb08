from pathlib import Path

import obstore
import pytest
from pydantic import ValidationError

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import open_store
from tasks.listing import ListingSettings, SkipCounts, list_images
from tasks.retrying import EmptySource
from tasks.sources import Sources

NAMES = [
    "2024/01/a.jpg",
    "2024/01/thumbs/a.jpg",
    "2024/02/b.JPEG",
    "2024/notes.txt",
    "2025/c.png",
    "2025/d.tif",
    "empty.jpg",
    "e",
]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty.jpg" else b"x")
    return f"file://{tmp_path}"


def names(archive: str, **settings) -> tuple[list[str], dict[str, int]]:
    settings = {"prefixes": (archive,)} | settings
    skipped = SkipCounts()
    records = list(list_images(ListingSettings(**settings), Sources(None), skipped))
    assert records == sorted(records, key=lambda record: record.key.encode())
    return [record.key.removeprefix(f"{archive}/") for record in records], dict(skipped)


def test_suffixes_in_any_case_and_empty_files_are_images(archive: str):
    assert names(archive) == (
        ["2024/01/a.jpg", "2024/01/thumbs/a.jpg", "2024/02/b.JPEG", "2025/c.png", "2025/d.tif", "empty.jpg"],
        {"suffix": 2},
    )
    assert names(archive, suffixes=(".TIF",)) == (["2025/d.tif"], {"suffix": 7})
    assert names(archive, suffixes=()) == (sorted(NAMES), {})


@pytest.mark.parametrize(
    ("include", "exclude", "found", "skipped"),
    [
        (["2024/**"], [], ["2024/01/a.jpg", "2024/01/thumbs/a.jpg", "2024/02/b.JPEG"], {"not included": 3}),
        (["/2024/*/*.jpg"], [], ["2024/01/a.jpg"], {"not included": 5}),
        (["a.jpg"], [], ["2024/01/a.jpg", "2024/01/thumbs/a.jpg"], {"not included": 4}),
        ([], ["thumbs/", "2025/"], ["2024/01/a.jpg", "2024/02/b.JPEG", "empty.jpg"], {"excluded folder": 2}),
        ([], ["*", "!2025/c.png"], ["2025/c.png"], {"excluded": 5}),
        (["2024/", "*.png"], ["**/thumbs/*"], ["2024/01/a.jpg", "2024/02/b.JPEG", "2025/c.png"], {"excluded": 1, "not included": 2}),
        (["[ae]*.j?g"], [], ["2024/01/a.jpg", "2024/01/thumbs/a.jpg", "empty.jpg"], {"not included": 3}),
    ],
)  # fmt: skip
def test_patterns(archive: str, include: list[str], exclude: list[str], found: list[str], skipped: dict[str, int]):
    kept, reasons = names(archive, include=include, exclude=exclude)
    assert kept == found
    assert reasons == skipped | {"suffix": 2}


def test_overlapping_prefixes_list_each_image_once(archive: str):
    prefixes = (f"{archive}/2025", archive, f"{archive}/2024/01/", f"{archive}/2024/01/a.jpg")
    skipped = SkipCounts()
    records = list(list_images(ListingSettings(prefixes=prefixes), Sources(None), skipped))
    assert len({record.key for record in records}) == len(records) == 6
    assert skipped["listed twice"] == 5
    assert {record.key.rpartition("/")[2]: record.source for record in records}["c.png"] == f"{archive}/2025"


def test_patterns_count_from_each_prefix(archive: str):
    prefixes = (f"{archive}/2024", f"{archive}/2025/c.png")
    skipped = SkipCounts()
    settings = ListingSettings(prefixes=prefixes, include=("/01/", "/c.png"))
    records = list(list_images(settings, Sources(None), skipped))
    assert [record.key.removeprefix(archive) for record in records] == [
        "/2024/01/a.jpg",
        "/2024/01/thumbs/a.jpg",
        "/2025/c.png",
    ]


def test_an_empty_prefix_among_others_is_said(archive: str, tmp_path: Path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EmptySource, match="nothing"):
        list(list_images(ListingSettings(prefixes=(archive, f"{archive}/nothing")), Sources(None), SkipCounts()))


def test_listing_is_streamed():
    store = open_store("memory://test-listing-stream", None)
    for number in range(30):
        obstore.put(store, f"{number:02}.jpg", b"x")
    skipped = SkipCounts()
    stream = list_images(ListingSettings(prefixes=("memory://test-listing-stream",)), Sources(None), skipped)
    assert next(stream).key == "memory://test-listing-stream/00.jpg"


def test_key_lists_are_taken_as_they_stand_and_looked_up(archive: str, tmp_path: Path):
    path = tmp_path / "keys.csv"
    path.write_text(f"key\n{archive}/2025/c.png\n{archive}/2024/notes.txt\n{archive}/gone.jpg\n2025/c.png\n")
    skipped = SkipCounts()
    url = f"file://{path}"
    records = list(list_images(ListingSettings(key_list=url), Sources(None), skipped))
    assert [record.key.removeprefix(f"{archive}/") for record in records] == [
        "2024/notes.txt",
        "2025/c.png",
        "gone.jpg",
    ]
    assert skipped == {"listed twice": 1}
    assert [bool(record.etag) for record in records] == [True, True, False]
    assert [record.size_bytes for record in records] == [1, 1, 0]
    assert {record.source for record in records} == {url}


def test_etags_in_a_key_list_are_not_looked_up(tmp_path: Path):
    path = tmp_path / "keys.csv"
    path.write_text("key,etag,size\ns3://no-such-bucket/a.jpg,abc,5\n")
    records = list(list_images(ListingSettings(key_list=f"file://{path}"), Sources("nobody"), SkipCounts()))
    assert records == [ImageRecord("s3://no-such-bucket/a.jpg", "abc", 5, f"file://{path}")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either prefixes or key_list"),
        ({"prefixes": ["s3://b"], "key_list": "keys.csv"}, "not both"),
        ({"key_list": "keys.csv", "include": ["*"]}, "taken as it stands"),
        ({"prefixes": ["s3://b"], "exclude": ["!"]}, "is not a pattern"),
        ({"prefixes": ["s3://b"], "suffix": [".jpg"]}, "suffix"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        ListingSettings.model_validate(settings)
