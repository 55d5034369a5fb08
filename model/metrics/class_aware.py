"""This project's own score: per image and category as many one-to-one pairs as possible, and F1 over all (micro) or averaged over categories (macro)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.metrics.assignment import NOBODY
from model.metrics.iou import IOU_THRESHOLDS
from model.metrics.matching import group_keys, match_boxes, match_points
from model.metrics.shapes import Boxes, Flags, Floats, Ints, Masks, Points


@dataclass(frozen=True, slots=True)
class Counts:
    """What was there, what was said and what agreed, a row for each image and category in which anything was there or said, sorted by image then category.

    image, category: (g,) indices; truths, predictions: (g,) shapes; hits: (thresholds, g) pairs at each threshold.
    TP = hits, FP = predictions − hits, FN = truths − hits.
    """

    thresholds: tuple[float, ...]
    image: Ints
    category: Ints
    truths: Ints
    predictions: Ints
    hits: Ints


@dataclass(frozen=True, slots=True)
class F1:
    """Precision, recall and F1 at each threshold, (thresholds,) each. A ratio of nothing to nothing is NaN: no predictions have no precision,
    no truths no recall; F1 = 2 TP / (truths + predictions) is NaN only where both are missing, and 0 where one is."""

    thresholds: tuple[float, ...]
    precision: Floats
    recall: Floats
    f1: Floats

    @property
    def mean_f1(self) -> float:
        """F1 averaged over the thresholds, NaN where there was nothing to score."""
        return float(self.f1.mean())


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """A row for each category index below categories: (c,) each. missed_images: images that show the category and have no prediction of it (a wrong
    None, where the model was asked); imagined_images: images that do not show it and have predictions of it."""

    truths: Ints
    predictions: Ints
    hits: Ints  # (thresholds, c)
    images_with: Ints
    missed_images: Ints
    imagined_images: Ints


def count_boxes(truth: Boxes, predicted: Boxes, thresholds: Sequence[float] = IOU_THRESHOLDS) -> Counts:
    """Counts of boxes at one or more IoU thresholds above 0 and at most 1 (else ValueError). Either side may be empty."""
    return _count(truth, predicted, match_boxes(truth, predicted, thresholds), tuple(thresholds))


def count_points(truth: Boxes | Masks, predicted: Points) -> Counts:
    """Counts of points inside boxes or masks, with the one threshold 1. Either side may be empty."""
    return _count(truth, predicted, match_points(truth, predicted)[np.newaxis], (1.0,))


def micro(counts: Counts) -> F1:
    """F1 of all shapes of all images and categories together."""
    return _f1(counts.thresholds, counts.hits.sum(axis=1), counts.truths.sum(), counts.predictions.sum())


def by_category(counts: Counts, categories: int) -> CategoryCounts:
    """Sums over images. categories: how many there are; those that occur nowhere have zeros. Raises ValueError where counts hold a higher index."""
    if len(counts.category) and counts.category.max() >= categories:
        raise ValueError(f"category {counts.category.max()} of {categories}")

    def total(values: Ints | Flags) -> Ints:
        return np.bincount(counts.category, weights=values, minlength=categories).astype(np.int64)

    shown, said = counts.truths > 0, counts.predictions > 0
    return CategoryCounts(
        truths=total(counts.truths),
        predictions=total(counts.predictions),
        hits=np.stack([total(hits) for hits in counts.hits]),
        images_with=total(shown),
        missed_images=total(shown & ~said),
        imagined_images=total(said & ~shown),
    )


def category_f1(categories: CategoryCounts) -> Floats:
    """F1 of each category at each threshold: (thresholds, c), NaN where a category occurs neither in truth nor in prediction."""
    return f1_ratio(categories.hits, categories.truths + categories.predictions)


def macro(categories: CategoryCounts, thresholds: Sequence[float]) -> F1:
    """Averages over categories. F1 over those that occur in truth or prediction (one only imagined weighs 0), precision over those predicted, recall over
    those in truth. NaN where there are none."""
    return F1(
        tuple(thresholds),
        mean_of_defined(_ratio(categories.hits, categories.predictions)),
        mean_of_defined(_ratio(categories.hits, categories.truths)),
        mean_of_defined(category_f1(categories)),
    )


def f1_ratio(hits: Ints | Floats, shapes: Ints | Floats | np.int64) -> Floats:
    """2 · hits / shapes, by broadcasting, where shapes counts truths and predictions together; NaN where there are none."""
    return 2 * _ratio(hits, shapes)


def mean_of_defined(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _f1(thresholds: tuple[float, ...], hits: Ints, truths: np.int64, predictions: np.int64) -> F1:
    return F1(thresholds, _ratio(hits, predictions), _ratio(hits, truths), f1_ratio(hits, truths + predictions))


def _ratio(part: Ints | Floats, whole: Ints | Floats | np.int64) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.divide(part, whole), dtype=np.float64)


def _count(truth: Boxes | Masks, predicted: Boxes | Points, matched: Ints, thresholds: tuple[float, ...]) -> Counts:
    """matched: (thresholds, predictions), NOBODY where a prediction has no truth."""
    truth_keys, predicted_keys, categories = group_keys(truth, predicted)
    keys, group = np.unique(np.concatenate([truth_keys, predicted_keys]), return_inverse=True)
    truth_group, predicted_group = group[: len(truth_keys)], group[len(truth_keys) :]
    hits = np.zeros((len(thresholds), len(keys)), dtype=np.int64)
    for index, partner in enumerate(matched):
        hits[index] = np.bincount(predicted_group[partner != NOBODY], minlength=len(keys))
    return Counts(
        thresholds=thresholds,
        image=keys // categories,
        category=keys % categories,
        truths=np.bincount(truth_group, minlength=len(keys)),
        predictions=np.bincount(predicted_group, minlength=len(keys)),
        hits=hits,
    )
