import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest

from model.image_size import ImageLimits
from sinks.dataset.records import ImageRecord
from sinks.dataset.store import open_store
from tasks.fetching import STORAGE_IS_DOWN_AFTER, FetchedImage, FetchSettings, fetch_images
from tasks.listing import ListingSettings, SkipCounts, list_images
from tasks.retrying import AccessDenied, StorageError, StorageUnavailable, TooLarge, TransientStorageError, Vanished
from tasks.sources import Enter, ImageSource, Skip, Sources, every_folder
from tests.pictures import PICTURES, encode, jpeg, write_pictures

LIMITS = ImageLimits()


def fetch(records: list[ImageRecord], source: ImageSource, **settings) -> list[FetchedImage]:
    return list(fetch_images(records, source, LIMITS, FetchSettings(**settings), threading.Event()))


class Scripted:
    """A source whose reads end as the record's key says: a picture, or an exception."""

    def __init__(self, ends: dict[str, bytes | StorageError | Exception], hold: threading.Event | None = None) -> None:
        self.ends = ends
        self.hold = hold
        self.reads = 0
        self._lock = threading.Lock()

    def records(self) -> list[ImageRecord]:
        return [ImageRecord(key, "listed", 1, "scripted") for key in self.ends]

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        yield from self.records()

    def describe(self, key: str) -> tuple[str, int]:
        return "listed", 1

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        with self._lock:
            self.reads += 1
        if self.hold is not None:
            self.hold.wait(30)
        end = self.ends[record.key]
        if isinstance(end, Exception):
            raise end
        if len(end) > max_bytes:
            raise TooLarge(len(end), max_bytes)
        return end, "read"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_picture_of_a_folder_comes_back_in_order(tmp_path: Path):
    write_pictures(tmp_path)
    pictures = {f"file://{tmp_path}/{picture.name}": picture for picture in PICTURES}
    skipped = SkipCounts()
    settings = ListingSettings(prefixes=(f"file://{tmp_path}",), suffixes=())
    records = list(list_images(settings, Sources(None), skipped))
    fetched = fetch(records, Sources(None), threads=4)
    assert [image.record for image in fetched] == records
    assert {record.key for record in records} == set(pictures)
    assert not skipped
    for image in fetched:
        picture = pictures[image.record.key]
        assert image.status == picture.status, image
        assert image.etag == image.record.etag
        assert image.size_bytes == image.record.size_bytes
        assert (image.pixels is None) == (image.status is not None)
        if image.status:
            assert re.search(picture.reason, image.error or "", re.IGNORECASE)
        elif image.pixels is not None and picture.size_px:
            assert image.error is None
            assert (image.input_width_px, image.input_height_px) == LIMITS.fit(*picture.size_px)
            assert image.pixels.shape == (image.input_height_px, image.input_width_px, 3)
            bare = image.without_pixels()
            assert bare.pixels is None
            assert bare.input_width_px == image.input_width_px


def test_storage_errors_of_single_images_are_failed_rows():
    ends: dict[str, bytes | Exception] = {
        "1": jpeg(),
        "2": Vanished(),
        "3": AccessDenied("access denied: no"),
        "4": TransientStorageError("storage failed: busy"),
        "5": b"no picture",
        "6": jpeg(),
    }
    source = Scripted(ends)
    fetched = fetch(source.records(), source)
    assert [image.status for image in fetched] == [None, "failed", "failed", "failed", "unreadable", None]
    assert [image.error for image in fetched][1:4] == [
        "gone since it was listed",
        "access denied: no",
        "storage failed: busy",
    ]
    assert [image.etag for image in fetched] == ["read", "listed", "listed", "listed", "read", "read"]


def test_objects_that_changed_or_went_since_they_were_listed():
    store = open_store("memory://test-fetching", None)
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        obstore.put(store, name, jpeg())
    settings = ListingSettings(prefixes=("memory://test-fetching",))
    records = list(list_images(settings, Sources(None), SkipCounts()))
    obstore.put(store, "1.jpg", jpeg(quality=50))
    obstore.delete(store, "2.jpg")
    fetched = fetch(records, Sources(None))
    assert [(image.status, image.error) for image in fetched] == [
        ("failed", "changed since it was listed"),
        ("failed", "gone since it was listed"),
        (None, None),
    ]


@pytest.mark.parametrize(
    "error", [AccessDenied("access denied: 403"), TransientStorageError("storage failed: no such host")]
)
def test_storage_that_is_down_is_no_million_of_rows(error: StorageError):
    source = Scripted({f"{number:04}": error for number in range(1000)})
    with pytest.raises(StorageUnavailable, match=str(error)):
        fetch(source.records(), source)
    assert source.reads < 200


def test_an_outage_after_a_good_start_is_noticed():
    ends: dict[str, bytes | Exception] = {"0000": jpeg()}
    ends |= {f"{number:04}": TransientStorageError("storage failed: reset") for number in range(1, 100)}
    source = Scripted(ends)
    images = fetch_images(source.records(), source, LIMITS, FetchSettings(), threading.Event())
    assert next(images).status is None
    with pytest.raises(StorageUnavailable):
        list(images)


def test_a_closed_corner_of_an_open_archive_is_rows():
    ends: dict[str, bytes | Exception] = {"0000": jpeg()}
    ends |= {f"{number:04}": AccessDenied("access denied") for number in range(1, 60)}
    source = Scripted(ends)
    assert [image.status for image in fetch(source.records(), source)].count("failed") == 59


def test_vanished_images_say_nothing_of_storage():
    source = Scripted({f"{number:04}": Vanished() for number in range(3 * STORAGE_IS_DOWN_AFTER)})
    assert all(image.status == "failed" for image in fetch(source.records(), source))


def test_a_mistake_of_ours_is_raised():
    source = Scripted({"1": KeyError("ours")})
    with pytest.raises(KeyError):
        fetch(source.records(), source)


def test_keys_that_no_source_can_ask_for_are_failed_rows():
    obstore.put(open_store("memory://test-fetching-keys", None), "b.jpg", jpeg())
    strange = [f"htp://host/{number}.jpg" for number in range(STORAGE_IS_DOWN_AFTER)]
    strange += [f"memory://test-fetching-keys/a//{number}.jpg" for number in range(STORAGE_IS_DOWN_AFTER)]
    keys = [*strange, "memory:///b.jpg", "memory://test-fetching-keys//b.jpg", "memory://test-fetching-keys/b.jpg"]
    fetched = fetch([ImageRecord(key, "", 0, "list") for key in keys], Sources(None))
    assert [image.status for image in fetched] == ["failed"] * (len(keys) - 1) + [None]
    assert "Protocol not known" in str(fetched[0].error) and "cannot be addressed" in str(fetched[-2].error)


def test_large_files_are_not_read():
    source = Scripted({"listed large": jpeg(), "found large": jpeg()})
    small, large = ImageRecord("found large", "e", 0, "s"), ImageRecord("listed large", "e", 10**9, "s")
    fetched = fetch([large, small], source, max_bytes=1000)
    assert [image.status for image in fetched] == ["unreadable", "unreadable"]
    assert all("more than the limit of 1,000" in (image.error or "") for image in fetched)
    assert source.reads == 1


def test_stop_ends_it_promptly_while_reads_hang():
    hold, stop = threading.Event(), threading.Event()
    source = Scripted({f"{number:04}": jpeg() for number in range(500)}, hold)
    ended = threading.Event()
    got: list[FetchedImage] = []

    def consume() -> None:
        got.extend(fetch_images(source.records(), source, LIMITS, FetchSettings(threads=4), stop))
        ended.set()

    threading.Thread(target=consume).start()
    try:
        while not source.reads:
            time.sleep(0.01)
        stop.set()
        assert ended.wait(30)
        assert got == []
        assert source.reads <= 4
    finally:
        hold.set()


def test_it_reads_ahead_but_no_further_than_asked():
    source = Scripted({f"{number:04}": jpeg() for number in range(100)})
    images = fetch_images(source.records(), source, LIMITS, FetchSettings(threads=4, ahead=8), threading.Event())
    next(images)
    time.sleep(0.3)
    assert 1 < source.reads <= 9
    del images


def test_large_pictures_are_decoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.fetching.DECODING_BYTES", 1)  # each is larger than all the room there is
    monkeypatch.setattr("tasks.fetching.FILE_BYTES", 1)
    source = Scripted({f"{number}": encode(np.zeros((300, 300, 3), np.uint8), "PNG") for number in range(20)})
    assert all(image.pixels is not None for image in fetch(source.records(), source, threads=8))
