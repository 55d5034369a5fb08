import math

import numpy as np
import pytest

from model.metrics import intervals
from model.metrics.class_aware import by_category, count_boxes, macro, micro
from model.metrics.intervals import macro_intervals, micro_intervals
from model.metrics.shapes import Boxes

NO_BOXES = Boxes.of([], [], [])
IMAGES = 60


def found_with_probability(share: float, images: int = IMAGES, seed: int = 0):
    """Counts of images with two boxes of three categories each, of which share is found."""
    random = np.random.default_rng(seed)
    count = images * 2
    image, category = np.repeat(np.arange(images), 2), random.integers(0, 3, count)
    boxes = np.tile([[0.0, 0, 10, 10], [50, 0, 60, 10]], (images, 1))
    rows = random.random(count) < share
    return count_boxes(Boxes.of(image, category, boxes), Boxes.of(image[rows], category[rows], boxes[rows]), (0.5, 0.9))


@pytest.mark.parametrize("bootstrap", [micro_intervals, macro_intervals])
def test_bounds_lie_around_the_score_and_narrow_with_more_images(bootstrap):
    few, many = found_with_probability(0.7), found_with_probability(0.7, images=2000)
    score = micro(few).mean_f1 if bootstrap is micro_intervals else macro(by_category(few, 3), few.thresholds).mean_f1
    narrow, wide = bootstrap(many, 2000), bootstrap(few, IMAGES)
    assert wide.mean.low < score < wide.mean.high
    assert narrow.mean.high - narrow.mean.low < 0.5 * (wide.mean.high - wide.mean.low)
    assert len(wide.at) == 2


@pytest.mark.parametrize("bootstrap", [micro_intervals, macro_intervals])
def test_same_seed_same_bounds(bootstrap, monkeypatch):
    counts = found_with_probability(0.7, images=500)
    bounds = bootstrap(counts, 500, seed=5)
    assert bounds == bootstrap(counts, 500, seed=5)
    assert bounds != bootstrap(counts, 500, seed=6)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 1000)
    assert bootstrap(counts, 500, seed=5).mean.low == pytest.approx(bounds.mean.low)  # but for the order of sums


def test_covers_the_truth_about_as_often_as_it_says():
    """Micro F1 of boxes found with probability 0.7 and no false alarm is 2 · 0.7 / 1.7."""
    bounds = [micro_intervals(found_with_probability(0.7, seed=seed), IMAGES).mean for seed in range(60)]
    assert sum(bound.low <= 1.4 / 1.7 <= bound.high for bound in bounds) >= 50


def test_less_confidence_is_narrower():
    counts = found_with_probability(0.7)
    wide, narrow = (micro_intervals(counts, IMAGES, confidence=confidence).mean for confidence in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("bootstrap", [micro_intervals, macro_intervals])
def test_all_found(bootstrap):
    assert bootstrap(found_with_probability(1.1), IMAGES).mean == intervals.Interval(1.0, 1.0)


@pytest.mark.parametrize("bootstrap", [micro_intervals, macro_intervals])
@pytest.mark.parametrize("images", [0, 3])
def test_nothing_to_score(bootstrap, images):
    bounds = bootstrap(count_boxes(NO_BOXES, NO_BOXES, [0.5]), images)
    assert math.isnan(bounds.mean.low)
    assert math.isnan(bounds.at[0].high)


def test_resamples_with_nothing_to_score_are_left_out():
    """One box in one of three images: a third of the resamples draw none of it."""
    one = Boxes.of([0], [0], [[0, 0, 1, 1]])
    assert micro_intervals(count_boxes(one, one), 3).mean == intervals.Interval(1.0, 1.0)


def test_errors():
    counts = found_with_probability(0.7)
    with pytest.raises(ValueError, match="image 59 of 59"):
        micro_intervals(counts, 59)
    for confidence in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="confidence"):
            macro_intervals(counts, IMAGES, confidence=confidence)
