"""What a gallery counts and chooses."""

import tracemalloc
from collections.abc import Iterator

import pyarrow as pa

from sinks.gallery.selection import select_pictures
from tests.sinks.made_views import MadeView, image, shape, table

KEYS = [f"s3://archive/{number:03d}.jpg" for number in range(40)]


def graded_view(batch_images: int = 7) -> MadeView:
    """Image n has n shapes; the lower its number the higher its scores."""
    shapes = [shape(key, instance=i, score=1 - number / 100) for number, key in enumerate(KEYS) for i in range(number)]
    return MadeView([image(key) for key in KEYS], shapes, batch_images=batch_images)


def test_emptiest_least_certain_then_a_sample_of_the_rest() -> None:
    selection = select_pictures(graded_view(), 20)
    assert selection.emptiest == (KEYS[0], KEYS[1])
    assert selection.least_certain == (KEYS[39], KEYS[38])
    assert len(selection.sample) == 16
    assert list(selection.sample) == sorted(selection.sample)
    assert not {*selection.emptiest, *selection.least_certain} & {*selection.sample}


def test_batches_do_not_show() -> None:
    assert select_pictures(graded_view(1), 20) == select_pictures(graded_view(40), 20)


def test_a_small_view_is_shown_whole() -> None:
    selection = select_pictures(graded_view(), 100)
    assert sorted((*selection.emptiest, *selection.least_certain, *selection.sample)) == KEYS


def test_what_is_counted() -> None:
    rows = [
        image(KEYS[0], flags=["truncated"], status="truncated"),
        image(KEYS[0], prompt_index=1),
        image(KEYS[1], status="unreadable", error="zero bytes", width_px=None, height_px=None),
        image(KEYS[2], status="failed", error=None),
    ]
    shapes = [shape(KEYS[0], flags=["large_box"]), shape(KEYS[0], "wolf", category=None, instance=1, flags=["unasked"])]
    selection = select_pictures(MadeView(rows, shapes), 5)
    counts = selection.counts
    assert (counts.images, counts.shapes) == (3, 2)
    assert counts.statuses == {"truncated": 1, "unreadable": 1, "failed": 1}
    assert counts.flags == {"truncated": 1, "large_box": 1, "unasked": 1}
    assert counts.categories == {"dog": 1, "(unasked)": 1}
    assert [(f.key, f.status, f.error) for f in selection.failures] == [
        (KEYS[1], "unreadable", "zero bytes"),
        (KEYS[2], "failed", "no reason recorded"),
    ]
    assert selection.sample == (KEYS[0],)


def test_every_rare_flag_category_and_status_has_a_picture() -> None:
    rows = [image(f"s3://archive/{n:04d}.jpg") for n in range(500)]
    rows[123] |= {"status": "malformed", "flags": ["malformed"]}
    shapes = [shape(row["image_key"]) for row in rows]
    shapes[77] |= {"flags": ["reversed"]}
    shapes[401] |= {"category": "heron"}
    chosen = select_pictures(MadeView(rows, shapes, batch_images=50), 12).sample
    assert {rows[n]["image_key"] for n in (123, 77, 401)} <= {*chosen}
    assert len(chosen) <= 12


def test_nothing_to_show() -> None:
    selection = select_pictures(MadeView([]), 12)
    assert (selection.counts.images, selection.failures, selection.sample) == (0, (), ())


class ManyImages:
    """A large view that holds one batch at a time; every second image failed."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """As LabelledImages."""
        for number in range(self._batches):
            keys = [f"s3://archive/{number:04d}-{i:03d}.jpg" for i in range(100)]
            statuses = ("ok", "failed")
            images = [image(key, status=statuses[i % 2], error="timeout") for i, key in enumerate(keys)]
            yield table("images", images), table("annotations", [shape(key) for key in keys[::2]])


def test_memory_does_not_grow_with_the_archive() -> None:
    peaks = []
    for batches in (4, 20):
        tracemalloc.start()
        select_pictures(ManyImages(batches), 30)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
