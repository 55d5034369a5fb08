"""The gallery's page: what it shows, that it is closed to the world, and how a browser renders it."""

import base64
import io
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, ObjectStore
from PIL import Image, ImageDraw

from sinks.gallery import GallerySettings, GallerySink, ImageUnavailableError, JobFacts
from sinks.gallery.page import thumbnail_url
from tests.servers.chromium import find_chromium, screenshot
from tests.sinks.made_views import MadeView, image, shape

FACTS = JobFacts(
    job="Harbour cameras",
    run_id="20261120-115501-a1b2c3",
    state="unchecked",
    note="No golden set: nobody checked these labels.",
    model="IDEA-Research/Rex-Omni",
    revision="8f3c2d1",
    task="detection",
    categories=("dog", "cat"),
    finished_at="2026-11-20 11:58 UTC",
    images_per_second=38.42,
    f1=0.9421,
    f1_interval=(0.921, 0.958),
    places={"Annotations": "s3://labels/harbour/"},
)
KEYS = [f"s3://archive/photos/{name}.jpg" for name in ("a", "b", "c", "gone", "changed")]
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def load_image(key: str) -> Image.Image:
    if "gone" in key:
        raise ImageUnavailableError("404: the object is gone")
    picture = Image.new("RGB", (800, 600) if "changed" in key else (640, 480), (40, 90, 60))
    ImageDraw.Draw(picture).rectangle((10, 20, 110, 220), fill=(220, 30, 30))
    return picture


def sink(store: ObjectStore, facts: JobFacts = FACTS, **settings: Any) -> GallerySink:
    return GallerySink(GallerySettings(url="memory://gallery/", **settings), store, facts, load_image)


def mixed_view() -> MadeView:
    """Every geometry, a flag, a status, an image that is gone, one that changed, two without labels."""
    images = [image(key) for key in KEYS]
    images[1] |= {"status": "truncated", "flags": ["truncated"]}
    images += [
        image(f"s3://archive/photos/broken-{n}.jpg", status=status, error=error, width_px=None, height_px=None)
        for n, (status, error) in enumerate([("unreadable", "zero bytes"), ("failed", "timeout")])
    ]
    names = ["nose", "left eye", "right eye"]
    shapes = [
        shape(KEYS[0]),
        shape(KEYS[0], "wolf", category=None, instance=1, flags=["unasked"], score=None),
        shape(KEYS[1], "cat", geometry="polygon", points=[10.0, 20.0, 110.0, 20.0, 60.0, 220.0]),
        shape(KEYS[1], "dog", instance=1, geometry="point", points=[30.0, 40.0], bbox_xyxy=[30.0, 40.0, 30.0, 40.0]),
        shape(
            KEYS[2],
            "cat",
            geometry="keypoints",
            points=[50.0, 60.0, 70.0, 80.0],
            keypoint_names=names,
            keypoint_visible=[True, False, True],
            score=0.31,
        ),
        shape(KEYS[3]),
        shape(KEYS[4]),
    ]
    return MadeView(images, shapes)


def page_of(store: ObjectStore) -> str:
    return bytes(obstore.get(store, "gallery.html").bytes()).decode()


class Tags(HTMLParser):
    """The page's tags and their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside in ("script", "style") else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_shows_the_facts_and_every_picture() -> None:
    store = MemoryStore()
    report = sink(store).push(mixed_view())
    page = Tags(page_of(store))
    assert (report.added, report.images, report.annotations, report.objects) == (1, 5, 7, ("gallery.html",))
    for fact in (
        "Harbour cameras",
        "20261120-115501-a1b2c3",
        "unchecked",
        "nobody checked",
        "IDEA-Research/Rex-Omni",
        "8f3c2d1",
        "38.4",
        "0.942",
        "0.921 – 0.958",
        "s3://labels/harbour/",
        "2026-11-20 11:58 UTC",
    ):
        assert fact in page.text
    assert len(page.all("figure")) == 5
    for reason in (
        "zero bytes",
        "timeout",
        "404: the object is gone",
        "it was 640 × 480 when it was labelled and is 800 × 600 now",
    ):
        assert reason in page.text
    assert page.text.index("zero bytes") < page.text.index("A sample of the rest")
    assert "wolf · unasked" in page.text
    assert len(page.all("polygon")) == 2  # a dark edge and the line on it
    assert len(page.all("circle")) == 3
    assert len([line for line in page.all("line") if line["class"] == "line limb"]) == 1


def test_a_page_without_f1_speed_or_labels() -> None:
    store = MemoryStore()
    facts = JobFacts("j", "r", "promoted", "", "m", "", "pointing", (), "")
    report = sink(store, facts).push(MadeView([]))
    assert report.images == 0
    assert "No labelled picture to show." in page_of(store)
    assert "F1" not in Tags(page_of(store)).text


def test_nothing_is_fetched_from_anywhere() -> None:
    store = MemoryStore()
    sink(store).push(mixed_view())
    page = Tags(page_of(store))
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "img"} == set()
    links = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert "default-src 'none'" in str(page.all("meta")[1]["content"])
    assert not re.search(r"url\(|@import", page_of(store))


def test_keys_phrases_and_reasons_cannot_break_out() -> None:
    key = f"s3://archive/{EVIL}.jpg"
    view = MadeView(
        [image(key, flags=[EVIL]), image(f"{key}2", status="failed", error=EVIL)],
        [shape(key, EVIL), shape(key, f"{EVIL}?", category=None, instance=1)],
    )
    facts = JobFacts(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, (EVIL,), EVIL, places={EVIL: EVIL})
    store = MemoryStore()
    sink(store, facts).push(view)
    page = Tags(page_of(store))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(EVIL) >= 10


def test_pushing_twice_leaves_the_page_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert sink(store).plan(mixed_view()).added == 1
    assert sink(store).verify(mixed_view()) == ("gallery.html is missing",)
    sink(store).push(mixed_view())
    before = (tmp_path / "gallery.html").stat().st_mtime_ns
    assert sink(store).push(mixed_view()).unchanged == 1
    assert (tmp_path / "gallery.html").stat().st_mtime_ns == before
    assert sink(store).verify(mixed_view()) == ()
    assert sink(store).push(MadeView([])).changed == 1
    assert sink(store).verify(mixed_view()) == ("gallery.html differs from what the view makes",)


def test_the_number_of_pictures_is_bounded() -> None:
    store = MemoryStore()
    report = sink(store, pictures=4).push(MadeView([image(f"s3://archive/{n}.jpg") for n in range(30)]))
    assert (report.images, report.left_out) == (4, {"image not chosen for the page": 26})
    assert len(Tags(page_of(store)).all("figure")) == 4


def test_many_shapes_are_drawn_up_to_a_limit_and_it_says_so() -> None:
    store = MemoryStore()
    sink(store).push(MadeView([image(KEYS[0])], [shape(KEYS[0], instance=n) for n in range(301)]))
    assert "300 of 301 drawn" in page_of(store)
    assert page_of(store).count('<g class="mark') == 300


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("RGB", (1200, 300), (400, 100)),
        ("RGB", (64, 48), (64, 48)),
        ("L", (800, 800), (400, 400)),
        ("P", (401, 2), (400, 2)),
    ],
)
def test_thumbnails_are_small_jpegs(mode: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    url = thumbnail_url(Image.new(mode, size), size, 400)
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", expected, "RGB")


def test_a_turned_image_is_turned_before_it_is_compared() -> None:
    turned = Image.new("RGB", (480, 640))
    turned.getexif()[0x0112] = 6
    assert thumbnail_url(turned, (640, 480), 400)


needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed (CI installs it)")


@needs_chromium
@pytest.mark.parametrize(("width_px", "height_px"), [(1440, 900), (390, 844)])
def test_a_browser_renders_it(tmp_path: Path, width_px: int, height_px: int) -> None:
    sink(LocalStore(tmp_path)).push(mixed_view())
    # in a frame, because a window is never narrower than 500 px
    frame = tmp_path / "frame.html"
    style = f"border:0;width:{width_px}px;height:{height_px}px"
    frame.write_text(f"<body style='margin:0'><iframe src='gallery.html' style='{style}'></iframe>")
    screenshot(frame, tmp_path / "page.png", width_px=max(width_px, 500), height_px=height_px)
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))[:, :width_px]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    margin = pixels[:, width_px - 4 :].reshape(-1, 3)
    assert (margin == margin[0]).all(), "something hangs over the right edge"


def dump_dom(page: Path, profile: Path) -> tuple[str, str]:
    """The page as it stands after its scripts have run, and what the browser logged."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
    ]
    command = [str(find_chromium()), *flags, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@needs_chromium
def test_its_script_runs_under_its_own_policy_and_evil_names_do_not(tmp_path: Path) -> None:
    view = MadeView([image(f"s3://archive/{EVIL}.jpg")], [shape(f"s3://archive/{EVIL}.jpg", EVIL)])
    sink(LocalStore(tmp_path)).push(view)
    dom, log = dump_dom(tmp_path / "gallery.html", tmp_path / "profile")
    assert "CONSOLE" not in log
    page = Tags(dom)
    assert len(page.all("figure")) == 1
    assert page.all("html")[0].get("class") == "scripted"
    assert page.all("img") == []
    assert "<output>1 picture</output>" in dom


@needs_chromium
def test_pictures_are_filtered_and_enlarged(tmp_path: Path) -> None:
    sink(LocalStore(tmp_path)).push(mixed_view())
    page = (tmp_path / "gallery.html").read_text()
    clicks = "document.querySelector('.bar.is-truncated').click(); document.querySelector('figure:not([hidden]) .picture').click();"
    # without the policy, which would keep the test's clicks out too
    page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace(
        "</body>", f"<script>{clicks}</script></body>"
    )
    (tmp_path / "clicked.html").write_text(page)
    dom, log = dump_dom(tmp_path / "clicked.html", tmp_path / "profile")
    assert "CONSOLE" not in log
    hidden = [figure for figure in Tags(dom).all("figure") if "hidden" in figure]
    assert len(hidden) == 4
    assert "<output>1 of 5 pictures</output>" in dom
    assert "open" in Tags(dom).all("dialog")[0]
    assert dom.split("<dialog", 1)[1].count("<svg") == 1
