"""A picture's rows as marks to draw over it: colours, labels, corners, dots and limbs in pixels of the image. Knows no HTML."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from model.annotations import BOX, FALSE_ALARM, HIT, KEYPOINTS, MISS, POINT, POLYGON
from sinks.gallery.selection import UNASKED

COLOURS = 8  # in page.css, told apart by colour-blind eyes too
STYLES = 3 * COLOURS  # each colour solid, dashed and dotted
MAX_MARKS = 300  # more of them hide the picture and slow the page
VERDICTS = {HIT: "hit", FALSE_ALARM: "false alarm", MISS: "missed"}
_LABEL_LENGTH = 48
_LABEL_HEIGHT_PX = 18
_CARD_WIDTH_PX, _CARD_HEIGHT_PX = 300, 225  # about what a picture gets on the page

_SIDES = ("left", "right")
_FINGERS = ("thumb", "forefinger", "middle finger", "ring finger", "pinky finger")
_CHAINS = (
    *((f"{s} shoulder", f"{s} elbow", f"{s} wrist") for s in _SIDES),
    *((f"{s} shoulder", f"{s} hip", f"{s} knee", f"{s} ankle") for s in _SIDES),
    *(("nose", f"{s} eye", f"{s} ear") for s in _SIDES),
    ("left shoulder", "right shoulder"),
    ("left hip", "right hip"),
    ("nose", "neck", "root of tail"),
    *(("neck", f"{s} shoulder", f"{s} elbow", f"{s} front paw") for s in _SIDES),
    *(("root of tail", f"{s} hip", f"{s} knee", f"{s} back paw") for s in _SIDES),
    *(("wrist", *(f"{finger} {joint}" for joint in range(1, 5))) for finger in _FINGERS),
)
LIMBS = tuple(dict.fromkeys(limb for chain in _CHAINS for limb in pairwise(chain)))


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape to draw. style: 1 … STYLES, 0 for a phrase nobody asked for. Lengths in image pixels; box is x, y, width, height."""

    style: int
    label: str
    box: tuple[float, float, float, float] | None
    corners: tuple[tuple[float, float], ...]
    dots: tuple[tuple[float, float], ...]
    limbs: tuple[tuple[float, float, float, float], ...]
    label_x: float
    label_y: float
    label_inside: bool  # below the box's upper edge, where there is no room above it
    label_from_right: bool
    verdict: str = ""  # of a golden image's shape: hit | miss | false_alarm; it decides the style then


def pixels_per_unit(width_px: int, height_px: int) -> float:
    """Image pixels under one pixel of the page when the picture lies in its card: what sizes of dots and letters are multiplied by."""
    return max(width_px / _CARD_WIDTH_PX, height_px / _CARD_HEIGHT_PX)


def style_of(category: str | None, styles: Mapping[str, int]) -> int:
    """The style of a category; 0: nobody asked for it."""
    return 0 if category is None or category == UNASKED else styles[category]


def draw_marks(shapes: list[dict[str, Any]], styles: Mapping[str, int], width_px: int, height_px: int) -> list[Mark]:
    """The marks of an image's annotation rows, large ones first so that small ones lie on top and can be reached; at most MAX_MARKS, the most certain."""
    if len(shapes) > MAX_MARKS:
        shapes = sorted(shapes, key=lambda row: -1.0 if row["score"] is None else row["score"], reverse=True)[
            :MAX_MARKS
        ]
    unit = pixels_per_unit(width_px, height_px)
    return [_mark(row, styles, width_px, unit) for row in sorted(shapes, key=_area, reverse=True)]


def draw_verdicts(check: Mapping[str, Any], width_px: int, height_px: int) -> list[Mark]:
    """The marks of a golden image's row: its hits, then its false alarms, then the true boxes that were missed, which lie on top. At most MAX_MARKS of each."""
    unit = pixels_per_unit(width_px, height_px)
    marks = []
    for verdict, shapes in ((HIT, check["predicted"]), (FALSE_ALARM, check["predicted"]), (MISS, check["truths"])):
        for shape in [one for one in shapes if one["verdict"] == verdict][:MAX_MARKS]:
            said = verdict != MISS
            is_point = said and shape["geometry"] == POINT
            row = {
                "category": shape["category"],
                "phrase": shape["phrase"] if said else shape["category"],
                "geometry": POINT if is_point else BOX,
                "bbox_xyxy": shape["bbox_xyxy"],
                "points": shape["bbox_xyxy"][:2] if is_point else None,
                "score": shape["score"] if said else None,
            }
            mark = _mark(row, {shape["category"]: 0}, width_px, unit)
            marks.append(replace(mark, verdict=verdict, label=f"{VERDICTS[verdict]}: {mark.label}"))
    return marks


def _area(row: Mapping[str, Any]) -> float:
    x0, y0, x1, y1 = row["bbox_xyxy"]
    return float((x1 - x0) * (y1 - y0))


def _mark(row: Mapping[str, Any], styles: Mapping[str, int], width_px: int, unit: float) -> Mark:
    x0, y0, x1, y1 = (round(v, 1) for v in row["bbox_xyxy"])
    flat = [round(v, 1) for v in row["points"] or ()]
    points = tuple(zip(flat[::2], flat[1::2], strict=True))
    limbs = _limbs(dict(zip(_visible_names(row), points, strict=True))) if row["geometry"] == KEYPOINTS else ()
    from_right = x0 > 0.6 * width_px
    return Mark(
        style=style_of(row["category"], styles),
        label=_label(row),
        box=None if row["geometry"] in (POINT, POLYGON) else (x0, y0, round(x1 - x0, 1), round(y1 - y0, 1)),
        corners=points if row["geometry"] == POLYGON else (),
        dots=points if row["geometry"] in (POINT, KEYPOINTS) else (),
        limbs=limbs,
        label_x=x1 if from_right else x0,
        label_y=y0,
        label_inside=y0 < _LABEL_HEIGHT_PX * unit,
        label_from_right=from_right,
    )


def _label(row: Mapping[str, Any]) -> str:
    phrase = row["phrase"] if len(row["phrase"]) <= _LABEL_LENGTH else row["phrase"][: _LABEL_LENGTH - 1] + "…"
    name = phrase if row["category"] == row["phrase"] else f"{phrase} · {row['category'] or 'unasked'}"
    return name if row["score"] is None else f"{name} {row['score']:.2f}"


def _visible_names(row: Mapping[str, Any]) -> list[str]:
    return [name for name, visible in zip(row["keypoint_names"], row["keypoint_visible"], strict=True) if visible]


def _limbs(places: Mapping[str, tuple[float, float]]) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((*places[a], *places[b]) for a, b in LIMBS if a in places and b in places)
