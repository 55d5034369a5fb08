"""How far F1 could have come out otherwise with other images: bootstrap intervals. Draws images, never shapes, since shapes of one image stand or fall together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from model.metrics.class_aware import Counts, f1_ratio, mean_of_defined
from model.metrics.shapes import Floats, Ints

RESAMPLES = 1000
CHUNK_CELLS = 1 << 21  # resamples × (images or groups) held at once: 16 MB a column


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds between which the middle share of the resamples lies. NaN, NaN where no resample had anything to score."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class F1Intervals:
    """Intervals of F1 at each threshold, in their order, and of its mean over the thresholds."""

    at: tuple[Interval, ...]
    mean: Interval


def micro_intervals(counts: Counts, images: int, *, confidence: float = 0.95, seed: int = 0) -> F1Intervals:
    """Percentile bootstrap of micro F1 over images. images: how many were looked at, those without truth and prediction included (they are drawn too).

    The same counts and seed give the same bounds. Raises ValueError where counts hold an image index beyond images, or confidence is not between 0 and 1.
    """
    hits = np.stack([np.bincount(counts.image, weights=row, minlength=images) for row in counts.hits], axis=1)
    shapes = np.bincount(counts.image, weights=counts.truths + counts.predictions, minlength=images)

    def score(draws: Floats) -> Floats:
        return f1_ratio(draws @ hits, (draws @ shapes)[:, np.newaxis])

    return _bootstrap(score, counts, images, images, confidence, seed)


def macro_intervals(counts: Counts, images: int, *, confidence: float = 0.95, seed: int = 0) -> F1Intervals:
    """The same for macro F1: in each resample the mean over the categories that occur in it."""
    order = np.argsort(counts.category, kind="stable")
    image, shapes, hits = counts.image[order], (counts.truths + counts.predictions)[order], counts.hits[:, order]
    starts = np.flatnonzero(np.diff(counts.category[order], prepend=-1))  # where each category's rows begin

    def score(draws: Floats) -> Floats:
        if not len(image):
            return np.full((len(draws), len(hits)), np.nan)
        weights = draws[:, image]
        total = np.add.reduceat(weights * shapes, starts, axis=1)
        return np.stack(
            [mean_of_defined(f1_ratio(np.add.reduceat(weights * row, starts, axis=1), total)) for row in hits], axis=1
        )

    return _bootstrap(score, counts, images, images + len(image), confidence, seed)


def _bootstrap(
    score: Callable[[Floats], Floats], counts: Counts, images: int, cells: int, confidence: float, seed: int
) -> F1Intervals:
    """score turns draws, (resamples, images) how often each image was drawn, into F1: (resamples, thresholds). cells: what a resample holds at once."""
    if len(counts.image) and counts.image.max() >= images:
        raise ValueError(f"image {counts.image.max()} of {images}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    scores = np.concatenate([score(draws) for draws in _draws(images, max(1, CHUNK_CELLS // max(cells, 1)), seed)])
    return F1Intervals(
        tuple(_middle(column, confidence) for column in scores.T), _middle(scores.mean(axis=1), confidence)
    )


def _draws(images: int, at_once: int, seed: int) -> Iterator[Floats]:
    """RESAMPLES times images out of images with replacement, as (at most at_once, images) how often each was drawn."""
    random = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn: Ints = random.integers(0, max(images, 1), (rows, images)) + np.arange(rows)[:, np.newaxis] * images
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _middle(scores: Floats, confidence: float) -> Interval:
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
