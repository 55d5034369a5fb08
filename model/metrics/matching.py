"""Pairs predictions with truths of the same image and category, as many as possible at a threshold. Counts and scores are left to class_aware."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.metrics.assignment import NOBODY, assign
from model.metrics.iou import iou_rowwise
from model.metrics.shapes import Boxes, Flags, Floats, Ints, Masks, Points

CHUNK_ROWS = 1 << 14  # predictions or truths worked on at once: their columns stay in the processor's cache
CHUNK_PAIRS = 1 << 20  # pairs looked at at once, should boxes be so crowded: about 200 MB


@dataclass(frozen=True, slots=True)
class Pairs:
    """Possible pairs: (e,) rows of the predictions and of the truths, and how well they agree (IoU, or 1 for a point in a shape)."""

    predicted: Ints
    truth: Ints
    agreement: Floats


def match_boxes(truth: Boxes, predicted: Boxes, thresholds: Sequence[float]) -> Ints:
    """One-to-one pairs of the same image and category with IoU ≥ threshold, as many as there can be, for each threshold (0 < threshold ≤ 1).

    Returns (thresholds, predictions): the truth's row of each prediction, or NOBODY. Raises ValueError for no threshold or one out of range.
    """
    if not len(thresholds) or any(not 0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"IoU thresholds are above 0 and at most 1, one or more: {list(thresholds)}")
    matched = np.full((len(thresholds), len(predicted)), NOBODY, dtype=np.int64)
    for truth_rows, predicted_rows, group_truth, group_predicted in _chunks(truth, predicted):
        pairs = _overlapping(
            truth.boxes_xyxy[truth_rows],
            group_truth,
            predicted.boxes_xyxy[predicted_rows],
            group_predicted,
            min(thresholds),
        )
        for index, threshold in enumerate(thresholds):
            partner = _assign_from(pairs, threshold, len(predicted_rows), len(truth_rows))
            found = partner != NOBODY
            matched[index, predicted_rows[found]] = truth_rows[partner[found]]
    return matched


def match_points(truth: Boxes | Masks, predicted: Points) -> Ints:
    """One-to-one pairs of a point and a box (edges included) or mask of the same image and category that holds it, as many as there can be.

    Returns (predictions,): the truth's row of each point, or NOBODY.
    """
    matched = np.full(len(predicted), NOBODY, dtype=np.int64)
    for truth_rows, predicted_rows, group_truth, group_predicted in _chunks(truth, predicted):
        starts, ends = (
            np.searchsorted(group_truth, group_predicted, "left"),
            np.searchsorted(group_truth, group_predicted, "right"),
        )
        point, shape = _expand(starts, ends)
        held = _holds(truth, truth_rows[shape], predicted.points_xy[predicted_rows[point]])
        pairs = Pairs(point[held], shape[held], np.ones(int(held.sum())))
        partner = _assign_from(pairs, 1.0, len(predicted_rows), len(truth_rows))
        found = partner != NOBODY
        matched[predicted_rows[found]] = truth_rows[partner[found]]
    return matched


def group_keys(truth: Boxes | Masks | Points, predicted: Boxes | Points) -> tuple[Ints, Ints, int]:
    """One number for image and category together, of each truth and of each prediction, ascending by image then category; and the number of categories in it."""
    categories = 1 + max((int(shapes.category.max()) for shapes in (truth, predicted) if len(shapes)), default=0)
    return truth.image * categories + truth.category, predicted.image * categories + predicted.category, categories


def _chunks(truth: Boxes | Masks, predicted: Boxes | Points) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Rows of the truths and of the predictions, sorted by group, and their groups: whole groups, about CHUNK_ROWS of either at a time."""
    truth_keys, predicted_keys, _ = group_keys(truth, predicted)
    truth_order, predicted_order = np.argsort(truth_keys, kind="stable"), np.argsort(predicted_keys, kind="stable")
    truth_keys, predicted_keys = truth_keys[truth_order], predicted_keys[predicted_order]
    cuts = np.unique(np.concatenate([truth_keys[CHUNK_ROWS::CHUNK_ROWS], predicted_keys[CHUNK_ROWS::CHUNK_ROWS]]))
    truth_cuts = [0, *np.searchsorted(truth_keys, cuts).tolist(), len(truth_keys)]
    predicted_cuts = [0, *np.searchsorted(predicted_keys, cuts).tolist(), len(predicted_keys)]
    for index in range(len(cuts) + 1):
        t, p = slice(*truth_cuts[index : index + 2]), slice(*predicted_cuts[index : index + 2])
        if t.start < t.stop and p.start < p.stop:
            yield truth_order[t], predicted_order[p], truth_keys[t], predicted_keys[p]


def _overlapping(
    truth_xyxy: Floats, truth_group: Ints, predicted_xyxy: Floats, predicted_group: Ints, threshold: float
) -> Pairs:
    """Pairs of one group with IoU ≥ threshold. The groups are sorted; rows are those of the arguments.

    Two boxes with IoU ≥ t share at least t of the width of either, so x0 of the truth lies between x0 − w · (1 − t) / t and x0 + w · (1 − t) of the prediction.
    With the truths of each group sorted by x0 only those between are looked at, which keeps crowded images linear.
    """
    truth_rows, predicted_rows = np.flatnonzero(_has_area(truth_xyxy)), np.flatnonzero(_has_area(predicted_xyxy))
    order = truth_rows[np.lexsort((truth_xyxy[truth_rows, 0], truth_group[truth_rows]))]
    if not len(order) or not len(predicted_rows):
        return Pairs(order[:0], order[:0], np.empty(0))
    group, x0 = truth_group[order], truth_xyxy[order, 0]
    starts, ends = (
        np.searchsorted(group, predicted_group[predicted_rows], "left"),
        np.searchsorted(group, predicted_group[predicted_rows], "right"),
    )
    # one ascending key of group and x0: each group gets a span of its own, wide enough that rounding cannot mix two groups
    span = 2 * float(x0.max() - x0.min()) + 1
    key = (np.cumsum(np.diff(group, prepend=group[0]) > 0)) * span + (x0 - x0.min())
    boxes = predicted_xyxy[predicted_rows]
    width = boxes[:, 2] - boxes[:, 0]
    slack = 1e-9 * width + 8 * np.spacing(key[-1])  # for rounding: a window may be too wide, never too narrow
    base = key[np.minimum(starts, len(key) - 1)] - x0[np.minimum(starts, len(key) - 1)] + boxes[:, 0]
    first = np.clip(np.searchsorted(key, base - width * (1 - threshold) / threshold - slack, "left"), starts, ends)
    last = np.clip(np.searchsorted(key, base + width * (1 - threshold) + slack, "right"), first, ends)
    found = []
    for piece in _pieces(last - first):
        near, candidate = _expand(first[piece], last[piece])
        near, candidate = predicted_rows[piece][near], order[candidate]
        agreement = iou_rowwise(predicted_xyxy[near], truth_xyxy[candidate])
        enough = agreement >= threshold
        found.append((near[enough], candidate[enough], agreement[enough]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _has_area(boxes_xyxy: Floats) -> Flags:
    return np.asarray(
        np.isfinite(boxes_xyxy).all(axis=1)
        & (boxes_xyxy[:, 2] > boxes_xyxy[:, 0])
        & (boxes_xyxy[:, 3] > boxes_xyxy[:, 1])
    )


def _pieces(counts: Ints) -> Iterator[slice]:
    """Slices over counts whose sums stay near CHUNK_PAIRS, each at least one long."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + CHUNK_PAIRS, "right")))
        yield slice(start, stop)
        start = stop


def _expand(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """All pairs of a position i and a number in starts[i] … ends[i] − 1."""
    counts = ends - starts
    position = np.repeat(np.arange(len(counts)), counts)
    return position, np.arange(len(position)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


def _assign_from(pairs: Pairs, threshold: float, predictions: int, truths: int) -> Ints:
    enough = pairs.agreement >= threshold
    return assign(pairs.predicted[enough], pairs.truth[enough], pairs.agreement[enough], predictions, truths)


def _holds(shapes: Boxes | Masks, rows: Ints, points_xy: Floats) -> Flags:
    """Whether the shape in each row holds the point beside it: (e,)."""
    if isinstance(shapes, Boxes):
        boxes = shapes.boxes_xyxy[rows]
        return np.asarray(((points_xy >= boxes[:, :2]) & (points_xy <= boxes[:, 2:])).all(axis=1))
    held = np.zeros(len(rows), dtype=np.bool_)
    order = np.argsort(rows, kind="stable")
    for positions in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
        if len(positions):
            held[positions] = shapes.masks[rows[positions[0]]].holds(points_xy[positions])
    return held
