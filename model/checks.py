"""Golden images' answers held against their truths: the rows of the table checks, and what a set of them is worth. Decides nothing and stores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from model.annotations import ABSENT, FALSE_ALARM, HIT, MISS, POINT, TRUNCATED, schema
from model.metrics.assignment import NOBODY
from model.metrics.class_aware import F1, Counts, by_category, category_f1, count_boxes, count_points, macro, micro
from model.metrics.intervals import F1Intervals, Interval, macro_intervals, micro_intervals
from model.metrics.iou import IOU_THRESHOLDS, iou_matrix
from model.metrics.matching import match_boxes, match_points
from model.metrics.shapes import Boxes, Floats, Ints, Points
from model.prompts import POINTING

HIT_IOU = 0.5  # from here on a box is a hit in the table checks; F1 is known at every threshold
_IN_THE_BOX = (1.0,)  # a point is in the box or is not

Row = Mapping[str, Any]
GoldenKey = tuple[str, str]  # the golden set's URL, the image's key


@dataclass(frozen=True, slots=True)
class Truth:
    """A true box, in pixels x0, y0, x1, y1 of the upright image, of one of the job's categories."""

    category: str
    bbox_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What a golden set says of an image. judged: the categories it tells the truth about; of those without a truth the image shows none."""

    width_px: int
    height_px: int
    judged: tuple[str, ...]
    truths: tuple[Truth, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """F1 at each of the thresholds and its mean over them, with 95 % intervals over images. precision and recall are at the first. None: nothing to score."""

    f1: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    mean: float | None
    mean_interval: tuple[float, float] | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """One category, at the first threshold but for mean. images: that show it; wrong_nones: of these, where the model said None; hallucinated: images without it
    where the model claimed one; duplicates: false alarms on a truth that another shape has hit."""

    name: str
    images: int
    truths: int
    predictions: int
    hits: int
    f1: float | None
    interval: tuple[float, float] | None
    mean: float | None
    wrong_nones: int
    hallucinated: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Scores:
    """What the answers about golden images are worth: plain values, so that a run's state can hold them.

    thresholds: IoU 0.50:0.05:0.95, for points the one threshold 1 (in the box). images: judged; unjudged: golden images that could not be read or answered, left out of
    everything else; truncated: answers cut by the length limit; repeated: shapes that were said again and left out.
    """

    thresholds: tuple[float, ...]
    images: int
    unjudged: int
    truncated: int
    repeated: int
    truths: int
    predictions: int
    micro: Level
    macro: Level
    categories: tuple[CategoryScore, ...]


def check_rows(images: pa.Table, annotations: pa.Table, known: Mapping[GoldenKey, KnownAnswer]) -> pa.Table:
    """The table checks of golden images: their rows of the tables images and annotations, held against what is known of them (all of them, by source and key)."""
    predicted: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    wanted = ["phrase", "category", "geometry", "bbox_xyxy", "score", "flags"]
    for row in annotations.select([*_PLACE, *wanted]).to_pylist():
        predicted.setdefault(_place(row), []).append({name: row[name] for name in wanted})
    rows = [{**row, "predicted": predicted.get(_place(row), [])} for row in images.to_pylist()]
    return _judged(rows, known)


def match_again(checks: pa.Table, known: Mapping[GoldenKey, KnownAnswer]) -> pa.Table:
    """The same answers held against what is known now. Images nothing is known of any more are left out."""
    rows = [row for row in checks.to_pylist() if (row["source"], row["image_key"]) in known]
    return _judged([{**row, "error": None if row["token_ids"] is not None else row["error"]} for row in rows], known)


def score_checks(checks: pa.Table) -> Scores:
    """What rows of the table checks, of one task, are worth. Without a judged image all counts are 0 and there is no F1."""
    rows = sorted(
        checks.to_pylist(), key=_place
    )  # intervals are drawn by position: the same rows give the same ones, however they were sharded
    answered = [row for row in rows if row["error"] is None]
    sides = _Sides.of(answered)
    thresholds = _IN_THE_BOX if sides.points is not None else IOU_THRESHOLDS
    counts = (
        count_boxes(sides.truths, sides.boxes, thresholds)
        if sides.points is None
        else count_points(sides.truths, sides.points)
    )
    categories = by_category(counts, len(sides.categories))
    f1 = category_f1(categories)
    absent = [{one["category"] for one in row["outcomes"] if one["outcome"] == ABSENT} for row in answered]
    shown = [{truth["category"] for truth in row["truths"]} for row in answered]
    duplicates = _duplicates(sides, answered)
    return Scores(
        thresholds=thresholds,
        images=len(answered),
        unjudged=len(rows) - len(answered),
        truncated=sum(row["status"] == TRUNCATED for row in answered),
        repeated=sum(row["dropped"] for row in answered if "repeated" in row["flags"]),
        truths=len(sides.truths),
        predictions=len(sides.boxes),
        micro=_level(micro(counts), micro_intervals(counts, len(answered))),
        macro=_level(macro(categories, thresholds), macro_intervals(counts, len(answered))),
        categories=tuple(
            CategoryScore(
                name=name,
                images=int(categories.images_with[index]),
                truths=int(categories.truths[index]),
                predictions=int(categories.predictions[index]),
                hits=int(categories.hits[0, index]),
                f1=_number(f1[0, index]),
                interval=_bounds(micro_intervals(_only(counts, index), len(answered)).at[0]),
                mean=_number(float(f1[:, index].mean())),
                wrong_nones=sum(name in says and name in shows for says, shows in zip(absent, shown)),
                hallucinated=int(categories.imagined_images[index]),
                duplicates=duplicates[index],
            )
            for index, name in enumerate(sides.categories)
        ),
    )


_PLACE = ("source", "image_key", "prompt_index")


def _place(row: Row) -> tuple[str, str, int]:
    return row["source"], row["image_key"], row["prompt_index"]


def _judged(rows: Sequence[Row], known: Mapping[GoldenKey, KnownAnswer]) -> pa.Table:
    """rows with judged, truths and all verdicts; an image of another size than the golden set says gets its error instead."""
    judged = []
    for row in rows:
        answer = known[row["source"], row["image_key"]]
        error = row["error"]
        if error is None and (row["width_px"], row["height_px"]) != (answer.width_px, answer.height_px):
            error = f"the golden set says {answer.width_px} × {answer.height_px}, the upright image is {row['width_px']} × {row['height_px']}"
        truths = [
            {"category": truth.category, "bbox_xyxy": list(truth.bbox_xyxy), "verdict": None} for truth in answer.truths
        ]
        predicted = [{**shape, "verdict": None} for shape in row["predicted"]]
        judged.append({**row, "error": error, "judged": list(answer.judged), "predicted": predicted, "truths": truths})
    # through the table's float32 and back, so that the verdicts are those of what is stored
    wanted = schema("checks")
    stored = pa.Table.from_pylist(judged, schema=wanted).to_pylist()
    answered = [row for row in stored if row["error"] is None]
    sides = _Sides.of(answered)
    partners = sides.matched()
    for (index, place), partner in zip(sides.predicted_at, partners.tolist()):
        answered[index]["predicted"][place]["verdict"] = FALSE_ALARM if partner == NOBODY else HIT
    hit = set(partners.tolist())
    for number, (index, place) in enumerate(sides.truth_at):
        answered[index]["truths"][place]["verdict"] = HIT if number in hit else MISS
    return pa.Table.from_pylist(stored, schema=wanted)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Truths and judged predictions as columns, image being the row's place. *_at: row and place in its list of each. points: the predictions, where points were asked for."""

    categories: tuple[str, ...]
    truths: Boxes
    boxes: Boxes
    points: Points | None
    truth_at: list[tuple[int, int]]
    predicted_at: list[tuple[int, int]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "_Sides":
        categories = tuple(dict.fromkeys(name for row in rows for name in row["judged"]))
        number = {name: index for index, name in enumerate(categories)}
        asks_points = any(row["task"] == POINTING for row in rows)
        geometry = POINT if asks_points else None
        truths, predicted = [], []
        for index, row in enumerate(rows):
            own = set(row["judged"])
            truths += [
                (index, place, number[one["category"]], one["bbox_xyxy"]) for place, one in enumerate(row["truths"])
            ]
            predicted += [
                (index, place, number[one["category"]], _place_of(one, geometry))
                for place, one in enumerate(row["predicted"])
                if one["category"] in own
            ]
        boxes = _boxes(predicted)
        return cls(
            categories,
            _boxes(truths),
            boxes,
            Points(boxes.image, boxes.category, boxes.boxes_xyxy[:, :2]) if asks_points else None,
            [(index, place) for index, place, *_ in truths],
            [(index, place) for index, place, *_ in predicted],
        )

    def matched(self) -> Ints:
        """(predictions,): the truth that each prediction hits at HIT_IOU, or NOBODY."""
        if self.points is not None:
            return match_points(self.truths, self.points)
        matched: Ints = match_boxes(self.truths, self.boxes, (HIT_IOU,))[0]
        return matched


def _place_of(shape: Row, geometry: str | None) -> list[float]:
    """The shape's box; where points were asked for and it is none, a place in no box."""
    return shape["bbox_xyxy"] if geometry in (None, shape["geometry"]) else [np.nan] * 4


def _boxes(shapes: Sequence[tuple[int, int, int, list[float]]]) -> Boxes:
    """From (image, place, category, box)."""
    return Boxes.of([one[0] for one in shapes], [one[2] for one in shapes], [one[3] for one in shapes])


def _duplicates(sides: _Sides, rows: Sequence[Row]) -> list[int]:
    """For each category the false alarms that lie on a truth: matching being as large as can be, another shape has hit it."""
    count = [0] * len(sides.categories)
    truths_of: dict[tuple[int, int], list[int]] = {}
    for number, (image, category) in enumerate(zip(sides.truths.image.tolist(), sides.truths.category.tolist())):
        truths_of.setdefault((image, category), []).append(number)
    for number, (row, place) in enumerate(sides.predicted_at):
        category = int(sides.boxes.category[number])
        near = truths_of.get((row, category))
        if near is None or rows[row]["predicted"][place]["verdict"] != FALSE_ALARM:
            continue
        box, truths = sides.boxes.boxes_xyxy[number], sides.truths.boxes_xyxy[near]
        count[category] += _lies_on(box, truths, sides.points is not None)
    return count


def _lies_on(box: Floats, truths: Floats, is_point: bool) -> bool:
    if is_point:
        return bool(((box[:2] >= truths[:, :2]) & (box[:2] <= truths[:, 2:])).all(axis=1).any())
    return bool((iou_matrix(box, truths) >= HIT_IOU).any())


def _only(counts: Counts, category: int) -> Counts:
    mine = counts.category == category
    return Counts(
        counts.thresholds,
        counts.image[mine],
        counts.category[mine],
        counts.truths[mine],
        counts.predictions[mine],
        counts.hits[:, mine],
    )


def _level(score: F1, intervals: F1Intervals) -> Level:
    return Level(
        f1=tuple(map(_number, score.f1.tolist())),
        intervals=tuple(map(_bounds, intervals.at)),
        mean=_number(score.mean_f1),
        mean_interval=_bounds(intervals.mean),
        precision=_number(float(score.precision[0])),
        recall=_number(float(score.recall[0])),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _bounds(interval: Interval) -> tuple[float, float] | None:
    return None if np.isnan(interval.low) else (interval.low, interval.high)
