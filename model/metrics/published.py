"""The scores that the published tables of Rex-Omni hold, quirks included, but for COCO's: per image, referring and pointing. For comparison with those tables only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.metrics.iou import IOU_THRESHOLDS, iou_matrix
from model.metrics.shapes import Boxes, Flags, Floats, Ints, Masks, Points


@dataclass(frozen=True, slots=True)
class Published:
    """Precision, recall and F1 at each threshold, (thresholds,) each, and mean_f1 as the protocol defines it. A ratio of nothing to nothing is 0."""

    thresholds: tuple[float, ...]
    precision: Floats
    recall: Floats
    f1: Floats
    mean_precision: float
    mean_recall: float
    mean_f1: float


def per_image(truth: Boxes, predicted: Boxes, images: int, *, also_named: tuple[Ints, Ints] | None = None) -> Published:
    """rexomni_per_image: blind to class within an image. Used for COCO-like tables.

    The predictions of the classes named in an image's truth form its pool. Each truth, in the order of the rows, takes the unused prediction of the pool with
    the highest IoU, if that reaches the threshold. Precision divides by all predictions of the image, those outside the pool included. Precision and recall are
    averaged over images (one without predictions has precision 0, one without truth recall 0); F1 is of the two averages, mean_f1 the mean over thresholds.
    also_named: image and category indices of classes that an image's truth names without a box. images: how many there are; 0 gives zeros.
    """
    named_image, named_category = (
        also_named if also_named is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    )
    categories = 1 + max(
        (int(column.max()) for column in (truth.category, predicted.category, named_category) if len(column)), default=0
    )
    named = np.concatenate([truth.image * categories + truth.category, named_image * categories + named_category])
    return _pooled(truth, predicted, np.isin(predicted.image * categories + predicted.category, named), images)


def referring(truth: Boxes, predicted: Boxes, images: int) -> Published:
    """The per-image protocol with every prediction of an image in the pool, whatever its class. Used for the referring tables."""
    return _pooled(truth, predicted, np.ones(len(predicted), dtype=np.bool_), images)


def pointing(truth: Masks, predicted: Points, images: int) -> Published:
    """The pointing tables: each mask, in the order of the rows, takes the first unused point of its class and image whose pixel, cut to whole numbers, lies in it.

    Averaged as in per_image, with the one threshold 1.
    """
    hits = np.zeros((1, images))
    for image, masks, points in _by_image(truth.image, predicted.image, images):
        used = np.zeros(len(points), dtype=np.bool_)
        for row in masks:
            open_to = np.flatnonzero((predicted.category[points] == truth.category[row]) & ~used)
            held = open_to[truth.masks[row].holds(predicted.points_xy[points[open_to]])]
            used[held[:1]] = True
        hits[0, image] = used.sum()
    return _averaged(hits, truth.image, predicted.image, images, (1.0,))


def _pooled(truth: Boxes, predicted: Boxes, in_pool: Flags, images: int) -> Published:
    thresholds = np.asarray(IOU_THRESHOLDS)
    hits = np.zeros((len(thresholds), images))
    for image, boxes, candidates in _by_image(truth.image, predicted.image, images):
        pool = candidates[in_pool[candidates]]
        hits[:, image] = _greedy_hits(iou_matrix(truth.boxes_xyxy[boxes], predicted.boxes_xyxy[pool]), thresholds)
    return _averaged(hits, truth.image, predicted.image, images, IOU_THRESHOLDS)


def _greedy_hits(iou: Floats, thresholds: Floats) -> Ints:
    """For each threshold how many rows of iou, in order, find an unused column; each takes the best one, the first of equals. iou: (truths, predictions)."""
    hits = np.zeros(len(thresholds), dtype=np.int64)
    if not iou.shape[1]:
        return hits
    used = np.zeros((len(thresholds), iou.shape[1]), dtype=np.bool_)
    levels = np.arange(len(thresholds))
    for row in iou:
        free = np.where(used, -1.0, row)
        best = free.argmax(axis=1)
        found = free[levels, best] >= thresholds
        used[levels[found], best[found]] = True
        hits += found
    return hits


def _by_image(truth_image: Ints, predicted_image: Ints, images: int) -> Iterator[tuple[int, Ints, Ints]]:
    """Each image that has both, with its rows of the truths and of the predictions in their order."""
    sides = []
    for column in (truth_image, predicted_image):
        if len(column) and column.max() >= images:
            raise ValueError(f"image {column.max()} of {images}")
        order = np.argsort(column, kind="stable")
        sides.append((order, np.searchsorted(column[order], np.arange(images + 1))))
    (truths, truth_ends), (predictions, predicted_ends) = sides
    for image in np.flatnonzero((np.diff(truth_ends) > 0) & (np.diff(predicted_ends) > 0)).tolist():
        yield (
            image,
            truths[truth_ends[image] : truth_ends[image + 1]],
            predictions[predicted_ends[image] : predicted_ends[image + 1]],
        )


def _averaged(
    hits: Floats, truth_image: Ints, predicted_image: Ints, images: int, thresholds: tuple[float, ...]
) -> Published:
    """hits: (thresholds, images)."""
    precision = (hits / np.maximum(np.bincount(predicted_image, minlength=images), 1)).sum(axis=1) / max(images, 1)
    recall = (hits / np.maximum(np.bincount(truth_image, minlength=images), 1)).sum(axis=1) / max(images, 1)
    f1 = harmonic_mean(precision, recall)
    return Published(thresholds, precision, recall, f1, float(precision.mean()), float(recall.mean()), float(f1.mean()))


def harmonic_mean(first: Floats, second: Floats) -> Floats:
    """2 · a · b / (a + b), and 0 where both are 0."""
    total = np.asarray(first + second)
    return np.asarray(2 * first * second / np.where(total > 0, total, 1.0), dtype=np.float64)
