"""One self-contained HTML page of a view: the job's facts, what was counted, and pictures with their labels drawn over them, the doubtful ones first.

Needs no network and works without scripts. Everything in it that comes from the archive or the model (keys, phrases, reasons) is escaped; a content security
policy lets nothing in but the page's own script. Reading images is left to whoever gives load_image.
"""

import base64
import hashlib
import io
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from obstore.exceptions import BaseError as StoreError
from obstore.store import ObjectStore
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from model.annotations import FALSE_ALARM, HIT, MISS, OK, schema
from sinks.base import LabelledImages, PushReport
from sinks.files import compare_with_stored, put_file
from sinks.gallery.drawing import (
    MAX_MARKS,
    STYLES,
    VERDICTS,
    Mark,
    draw_marks,
    draw_verdicts,
    pixels_per_unit,
    style_of,
)
from sinks.gallery.selection import STATUSES, UNASKED, Selection, select_pictures

PAGE = "gallery.html"
_PICTURE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)  # what Pillow raises for files it cannot show
_LOADING_THREADS = 8
_GOLDEN_PICTURES = 24  # the worst ones
_NOUNS = {
    "detection": ("box", "boxes"),
    "visual_prompting": ("box", "boxes"),
    "ocr_box": ("box", "boxes"),
    "gui_grounding": ("box", "boxes"),
    "ocr_polygon": ("polygon", "polygons"),
    "pointing": ("point", "points"),
    "gui_pointing": ("point", "points"),
    "keypoint": ("instance", "instances"),
}
_SHAPE_COLUMNS = [
    "image_key", "phrase", "category", "geometry", "bbox_xyxy", "points", "keypoint_names", "keypoint_visible", "score", "flags",
]  # fmt: skip


class GallerySettings(BaseModel):
    """Where the page goes and how many pictures it shows. About 30 kB a picture at the default size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["gallery"] = "gallery"
    url: str = Field(description=f"folder or prefix {PAGE} is written under")
    credentials: str | None = Field(None, description="name of the credentials for url; null: those of the output")
    pictures: int = Field(120, ge=1, le=2000, description="pictures on the page")
    thumbnail_px: int = Field(
        400, ge=64, le=2048, description="longest side of a picture; smaller images stay as they are"
    )


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What stands at the top of the page. What is counted comes from the view; here is what the view cannot know."""

    job: str
    run_id: str
    state: str  # promoted | held | unchecked …
    note: str  # a sentence to be read before anything else ("No golden set: nobody checked these labels"); may be empty
    model: str
    revision: str
    task: str
    categories: tuple[str, ...]  # the asked ones, in the job's order, which is the order of their colours
    finished_at: str
    images_per_second: float | None = None
    f1: float | None = None
    f1_interval: tuple[float, float] | None = None
    places: Mapping[str, str] = field(default_factory=dict)  # what lies where: "Annotations" → URL


class ImageUnavailableError(Exception):
    """An image cannot be shown any more; the message is the reason, for readers."""


LoadImage = Callable[[str], Image.Image]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A figure of the page. thumbnail: a data URL, or empty, then missing says why."""

    key: str
    name: str
    width_px: int
    height_px: int
    unit: float
    status: str
    flags: tuple[str, ...]
    categories: tuple[tuple[str, int, int], ...]  # name, style, count
    shapes: int
    lowest_score: float | None
    marks: list[Mark]
    thumbnail: str
    missing: str
    verdicts: tuple[tuple[str, str, int], ...] = ()  # of a golden image: verdict, its name, how often


class GallerySink:
    """A view as a page. store is rooted at the settings' url. checks: golden images to show with it (the table of that name).

    load_image gives the oriented image of a key in RGB; it is called from several threads at once. Where it raises ImageUnavailableError, a store's
    error or one of Pillow's for broken files, the page shows a placeholder with the reason.
    """

    def __init__(
        self,
        settings: GallerySettings,
        store: ObjectStore,
        facts: JobFacts,
        load_image: LoadImage,
        checks: pa.Table | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._facts = facts
        self._load_image = load_image
        self._checks = schema("checks").empty_table() if checks is None else checks

    def plan(self, view: LabelledImages) -> PushReport:
        """What push would do. Makes the page here to know."""
        return self._export(view, write=False)

    def push(self, view: LabelledImages) -> PushReport:
        """Makes the page, in one put; an equal view with equal facts leaves it as it is."""
        return self._export(view, write=True)

    def verify(self, view: LabelledImages) -> tuple[str, ...]:
        """Reads the page back and compares it with the one the view makes."""
        report = self.plan(view)
        if report.unchanged:
            return ()
        return (f"{PAGE} is missing" if report.added else f"{PAGE} differs from what the view makes",)

    def _export(self, view: LabelledImages, *, write: bool) -> PushReport:
        selection = select_pictures(view, self._settings.pictures)
        page = self._render(view, selection)
        with tempfile.TemporaryDirectory(prefix="prelabel-gallery-") as folder:
            local = Path(folder) / PAGE
            local.write_text(page, encoding="utf-8", newline="\n")
            difference = compare_with_stored(self._store, PAGE, local)
            if write and difference != "unchanged":
                put_file(self._store, PAGE, local, "text/html; charset=utf-8")
        shown = len(selection.emptiest) + len(selection.least_certain) + len(selection.sample)
        return PushReport(
            sink="gallery",
            added=int(difference == "added"),
            changed=int(difference == "changed"),
            unchanged=int(difference == "unchanged"),
            removed=0,
            images=shown,
            annotations=selection.counts.shapes,
            left_out={"image not chosen for the page": selection.counts.images - shown}
            if selection.counts.images > shown
            else {},
            objects=(PAGE,),
        )

    def _render(self, view: LabelledImages, selection: Selection) -> str:
        counts = selection.counts
        said = {
            shape["category"]
            for side in ("predicted", "truths")
            for row in self._checks[side].to_pylist()
            for shape in row
        }
        names = dict.fromkeys((*self._facts.categories, *sorted((counts.categories.keys() | said) - {UNASKED, None})))
        styles = {name: 1 + place % STYLES for place, name in enumerate(names)}
        pictures = self._pictures(view, {*selection.emptiest, *selection.least_certain, *selection.sample}, styles)
        nouns = _NOUNS.get(self._facts.task, ("shape", "shapes"))
        sections = [
            (f"Fewest {nouns[1]}", "Where the model found least. Is something missing?", selection.emptiest),
            ("Least certain", f"By the lowest score among a picture's {nouns[1]}.", selection.least_certain),
            (
                "A sample of the rest",
                "Drawn by chance, with some of every category, flag and status.",
                selection.sample,
            ),
        ]
        script = _read("page.js")
        return _template().render(
            facts=self._facts,
            nouns=nouns,
            counts=counts,
            failures=selection.failures,
            unlabelled=sum(counts.statuses[status] for status in STATUSES[3:]),
            golden=self._golden_pictures(styles),
            verdicts=VERDICTS,
            sections=[(title, text, [pictures[key] for key in keys]) for title, text, keys in sections if keys],
            category_bars=[
                (name, counts.categories[name], style_of(name, styles))
                for name in _by_count(counts.categories, (*names, UNASKED))
            ],
            flag_bars=[(name, counts.flags[name], 0) for name in _by_count(counts.flags, sorted(counts.flags))],
            status_bars=[(name, counts.statuses[name], 0) for name in STATUSES if counts.statuses[name]],
            numbers={name: place for place, name in enumerate((*names, UNASKED))},
            flag_numbers={name: place for place, name in enumerate(sorted(counts.flags))},
            status_numbers={name: place for place, name in enumerate(STATUSES)},
            styles=styles,
            frame=_frame(pictures.values()),
            max_marks=MAX_MARKS,
            style=Markup(_read("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )

    def _pictures(self, view: LabelledImages, keys: set[str], styles: Mapping[str, int]) -> dict[str, _Picture]:
        """The chosen images, drawn, by key: a second reading of the view that keeps only their rows."""
        wanted = pa.array(sorted(keys), pa.string())
        rows: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
        for images, annotations in view.batches():
            chosen = images.select(["image_key", "status", "flags", "width_px", "height_px"]).filter(
                pc.is_in(images["image_key"], value_set=wanted)
            )
            for row in chosen.to_pylist():
                rows.setdefault(row["image_key"], ([], []))[0].append(row)
            shapes = annotations.select(_SHAPE_COLUMNS).filter(pc.is_in(annotations["image_key"], value_set=wanted))
            for row in shapes.to_pylist():
                rows[row["image_key"]][1].append(row)
        with ThreadPoolExecutor(_LOADING_THREADS) as threads:
            drawn = threads.map(partial(self._picture, styles=styles), rows, rows.values())
            return {picture.key: picture for picture in drawn}

    def _golden_pictures(self, styles: Mapping[str, int]) -> list[_Picture]:
        """The golden images with the most misses and false alarms, drawn, the worst first."""
        judged = [row for row in self._checks.to_pylist() if row["error"] is None]
        judged.sort(key=lambda row: (-_mistakes(row), row["image_key"]))
        with ThreadPoolExecutor(_LOADING_THREADS) as threads:
            return list(threads.map(partial(self._golden_picture, styles=styles), judged[:_GOLDEN_PICTURES]))

    def _golden_picture(self, row: dict[str, Any], *, styles: Mapping[str, int]) -> _Picture:
        picture = self._picture(row["image_key"], ([row | {"flags": []}], []), styles=styles)
        found = [shape["verdict"] for side in ("predicted", "truths") for shape in row[side]]
        # a hit is in both lists: counted where it was said
        counts = {verdict: found.count(verdict) for verdict in (MISS, FALSE_ALARM)}
        counts[HIT] = sum(shape["verdict"] == HIT for shape in row["predicted"])
        named = dict.fromkeys(shape["category"] or UNASKED for shape in (*row["predicted"], *row["truths"]))
        return replace(
            picture,
            marks=draw_verdicts(row, picture.width_px, picture.height_px),
            shapes=len(row["predicted"]),
            categories=tuple((name, style_of(name, styles), 0) for name in named),
            verdicts=tuple((verdict, VERDICTS[verdict], counts[verdict]) for verdict in VERDICTS if counts[verdict]),
        )

    def _picture(
        self, key: str, rows: tuple[list[dict[str, Any]], list[dict[str, Any]]], *, styles: Mapping[str, int]
    ) -> _Picture:
        images, shapes = rows
        width, height = next(
            ((r["width_px"], r["height_px"]) for r in images if r["width_px"] and r["height_px"]), (4, 3)
        )
        try:
            thumbnail, missing = thumbnail_url(self._load_image(key), (width, height), self._settings.thumbnail_px), ""
        except (ImageUnavailableError, StoreError, *_PICTURE_ERRORS) as error:
            thumbnail, missing = "", str(error) or type(error).__name__
        names = [shape["category"] or UNASKED for shape in shapes]
        scores = [shape["score"] for shape in shapes if shape["score"] is not None]
        return _Picture(
            key=key,
            name=key.rstrip("/").rsplit("/", 1)[-1],
            width_px=width,
            height_px=height,
            unit=round(pixels_per_unit(width, height), 3),
            status=max((row["status"] for row in images), key=STATUSES.index, default=OK),
            flags=tuple(sorted({flag for row in (*images, *shapes) for flag in row["flags"]})),
            categories=tuple(
                (name, style_of(name, styles), names.count(name)) for name in (*styles, UNASKED) if name in names
            ),
            shapes=len(shapes),
            lowest_score=min(scores, default=None),
            marks=draw_marks(shapes, styles, width, height),
            thumbnail=thumbnail,
            missing=missing,
        )


def thumbnail_url(image: Image.Image, size_px: tuple[int, int], longest_px: int) -> str:
    """The image as a JPEG data URL, at most longest_px long and never enlarged.

    size_px: width and height it was labelled at. Raises ImageUnavailableError if it has another size now: its boxes would lie wrong.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.size != size_px:
        raise ImageUnavailableError(
            f"the image has changed: it was {size_px[0]} × {size_px[1]} when it was labelled and is {upright.width} × {upright.height} now"
        )
    small = upright.convert("RGB")
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _mistakes(check: Mapping[str, Any]) -> int:
    return sum(shape["verdict"] in (MISS, FALSE_ALARM) for shape in (*check["predicted"], *check["truths"]))


def _by_count(counts: Mapping[str, int], names: Sequence[str]) -> list[str]:
    """The most frequent first; what nobody asked for and was not said is left out."""
    return sorted(
        (name for name in names if name != UNASKED or counts.get(name)), key=lambda name: -counts.get(name, 0)
    )


def _frame(pictures: Iterable[_Picture]) -> float:
    """Width by height of the pictures' frames: what most of them are, within reason."""
    typical = median([picture.width_px / picture.height_px for picture in pictures] or [4 / 3])
    return round(min(max(typical, 3 / 4), 16 / 9), 3)


def _read(name: str) -> str:
    return files("sinks.gallery").joinpath(name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("page.html.jinja"))
