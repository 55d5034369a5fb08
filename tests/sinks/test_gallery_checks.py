"""The gallery's golden images: every hit, miss and false alarm drawn in its own style, the worst picture first, a legend; nothing of it where there is none."""

import re

import pyarrow as pa
import pytest
from obstore.store import MemoryStore
from PIL import Image

from sinks.gallery import PAGE, GallerySettings, GallerySink, ImageUnavailableError, JobFacts
from tests.model.test_checks import BESIDE, BOX, NEAR, checks
from tests.sinks.made_views import MadeView, image

FACTS = JobFacts("dogs", "r", "held", "F1 is low", "tiny", "1", "detection", ("dog", "cat"), "2026-11-20")


def load(key: str) -> Image.Image:
    if key == "gone":
        raise ImageUnavailableError("gone since")
    return Image.new("RGB", (640, 480), "grey")


def page_of(rows: pa.Table | None) -> str:
    store = MemoryStore()
    GallerySink(GallerySettings(url="memory://x"), store, FACTS, load, rows).push(MadeView([image("plain")]))
    return bytes(store.get(PAGE).bytes()).decode()


def test_every_verdict_is_drawn_and_the_worst_comes_first() -> None:
    said = {"good": [("dog", NEAR)], "bad": [("dog", BESIDE), ("cat", BESIDE)], "gone": [("dog", BESIDE)]}
    page = page_of(checks(said, {"good": [("dog", BOX)], "bad": [("dog", BOX)], "gone": []}))
    assert [page.count(f'class="mark v-{verdict}"') for verdict in ("hit", "miss", "false_alarm")] == [1, 1, 2]
    assert page.index('title="bad"') < page.index('title="gone"') < page.index('title="good"')
    assert "gone since" in page
    for label in ("hit: dog 0.90", "missed: dog", "false alarm: cat 0.90"):
        assert f"<title>{label}</title>" in page
    legend = page[page.index('class="legend"') :].partition("</p>")[0]
    assert re.findall(r"</i>([a-z ]+)", legend) == ["hit", "false alarm", "missed"]


def test_points_are_drawn_as_points() -> None:
    page = page_of(checks({"a": [("dog", (20, 20, 20, 20))]}, {"a": [("dog", BOX), ("cat", BOX)]}, task="pointing"))
    assert '<circle class="dot" cx="20.0" cy="20.0"/>' in page
    assert page.count('class="mark v-miss"') == 1


@pytest.mark.parametrize("rows", [None, checks({}, {})])
def test_without_golden_images_there_is_no_section(rows: pa.Table | None) -> None:
    assert "Spot check" not in page_of(rows)


def test_images_that_could_not_be_judged_are_not_shown() -> None:
    lost = {"status": "failed", "error": "storage is down", "token_ids": None}
    assert "Spot check" not in page_of(checks({"a": []}, {"a": [("dog", BOX)]}, rows={"a": lost}))
