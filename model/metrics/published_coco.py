"""The published score with COCO's matching and its interpolated precision, read off at the highest recall reached. For comparison with published tables only."""

import numpy as np

from model.metrics.iou import areas, iou_matrix, shared_areas
from model.metrics.published import Published, harmonic_mean
from model.metrics.shapes import Boxes, Flags, Floats, Ints

# pycocotools' own values, which differ from 0.50, 0.55 … in the last bit and decide where an IoU is a round number
THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_PREDICTIONS = 100  # of an image and category


def coco(truth: Boxes, predicted: Boxes, *, crowd: Flags | None = None) -> Published:
    """rexomni_coco, over all images in the order of their indices, all predictions of equal score in the order of their rows.

    Predictions of a category that the image's truth does not show are dropped first; then at most 100 an image and category count. Matching as in pycocotools:
    each prediction in turn takes the free truth with the highest IoU, the last of equals. Recall is TP / truths, precision COCO's interpolated one at the
    highest of the 101 recall thresholds that recall passes (where it is above 0); where it is nowhere, the previous IoU threshold's value stays (0 before the first). precision and
    recall are means over the categories with a value above 0; mean_precision and mean_recall are of each category's means over thresholds; each F1 is of the
    two means. crowd: (truths,) regions that any number of predictions may lie in without counting at all; None: none are. Empty input gives zeros.
    """
    crowd = np.zeros(len(truth), dtype=np.bool_) if crowd is None else crowd
    categories = np.unique(truth.category[~crowd])
    precision, recall = np.zeros((2, len(categories), len(THRESHOLDS)))
    for index, category in enumerate(categories):
        outcomes = _category_outcomes(truth, predicted, crowd, int(category))
        truths = int((truth.category[~crowd] == category).sum())
        recall[index] = (outcomes == 1).sum(axis=1) / truths
        precision[index] = _interpolated_precision(outcomes, truths)
    means = _mean_above_zero(precision), _mean_above_zero(recall)
    mean_precision, mean_recall = (
        _mean_above_zero(values.mean(axis=1, keepdims=True)) for values in (precision, recall)
    )
    return Published(
        THRESHOLDS,
        *means,
        harmonic_mean(*means),
        float(mean_precision[0]),
        float(mean_recall[0]),
        float(harmonic_mean(mean_precision, mean_recall)[0]),
    )


def _category_outcomes(truth: Boxes, predicted: Boxes, crowd: Flags, category: int) -> Ints:
    """1 hit, 0 false alarm, −1 not counted: (thresholds, predictions of the category that stay), by image then row."""
    truth_rows, predicted_rows = (
        np.flatnonzero(truth.category == category),
        np.flatnonzero(predicted.category == category),
    )
    truth_rows = truth_rows[np.argsort(truth.image[truth_rows], kind="stable")]
    predicted_rows = predicted_rows[np.argsort(predicted.image[predicted_rows], kind="stable")]
    truth_image, predicted_image = truth.image[truth_rows], predicted.image[predicted_rows]
    outcomes = [np.zeros((len(THRESHOLDS), 0), dtype=np.int64)]
    for image in np.intersect1d(truth_image, predicted_image):
        truths = truth_rows[slice(*np.searchsorted(truth_image, [image, image + 1]))]
        predictions = predicted_rows[slice(*np.searchsorted(predicted_image, [image, image + 1]))][:MOST_PREDICTIONS]
        outcomes.append(_match(truth.boxes_xyxy[truths], crowd[truths], predicted.boxes_xyxy[predictions]))
    return np.concatenate(outcomes, axis=1)


def _match(truth_xyxy: Floats, crowd: Flags, predicted_xyxy: Floats) -> Ints:
    """Outcomes of one image and category's predictions: (thresholds, predictions)."""
    iou = iou_matrix(predicted_xyxy, truth_xyxy)
    with np.errstate(invalid="ignore", divide="ignore"):  # a prediction without area lies in no crowd
        in_crowd = shared_areas(predicted_xyxy[:, np.newaxis], truth_xyxy[crowd]) / areas(predicted_xyxy)[:, np.newaxis]
    most_in_crowd = np.nan_to_num(in_crowd).max(axis=1, initial=0.0)
    levels = np.arange(len(THRESHOLDS))
    needed = np.minimum(THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((len(levels), len(truth_xyxy)), dtype=np.bool_)
    outcomes = np.zeros((len(levels), len(predicted_xyxy)), dtype=np.int64)
    last = len(truth_xyxy) - 1
    for index, row in enumerate(iou):
        free = np.where(taken | crowd, -1.0, row)
        best = last - free[:, ::-1].argmax(axis=1)
        found = free[levels, best] >= needed
        taken[levels[found], best[found]] = True
        outcomes[:, index] = np.where(found, 1, np.where(most_in_crowd[index] >= needed, -1, 0))
    return outcomes


def _interpolated_precision(outcomes: Ints, truths: int) -> Floats:
    """(thresholds,) COCO's interpolated precision at the highest of the recall thresholds where it is above 0, or the value before."""
    value = 0.0
    values = np.zeros(len(outcomes))
    for index, row in enumerate(outcomes):
        counted = row[row >= 0]
        hits = np.cumsum(counted)
        if len(hits) and hits[-1]:
            precision = hits / (np.arange(1, len(hits) + 1) + np.spacing(1))
            best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
            # a recall threshold is passed, not met: pycocotools has ≥ here, but the published numbers only come out with >
            reached = np.searchsorted(hits / truths, RECALLS, side="right")
            value = float(best_from_here[reached[reached < len(hits)][-1]])
        values[index] = value
    return values


def _mean_above_zero(values: Floats) -> Floats:
    """Over the first axis, of what is above 0; 0 where nothing is."""
    return np.asarray(values.sum(axis=0, where=values > 0) / np.maximum((values > 0).sum(axis=0), 1), dtype=np.float64)
