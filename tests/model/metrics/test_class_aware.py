import math

import numpy as np
import pytest

from model.metrics.class_aware import by_category, category_f1, count_boxes, count_points, macro, micro
from model.metrics.iou import IOU_THRESHOLDS
from model.metrics.shapes import Boxes, Points

A, B, C, D = range(4)  # categories
NO_BOXES = Boxes.of([], [], [])


def at(x: float, width: float = 10) -> list[float]:
    return [x, 0, x + width, 10]


# image 0: a is found, one b is found and one missed, one b too many; image 1: a is found at IoU 0.7 only, c is imagined; image 2: b is overlooked
TRUTH = Boxes.of([0, 0, 0, 1, 2], [A, B, B, A, B], [at(0), at(20), at(40), at(0), at(0)])
PREDICTED = Boxes.of([0, 0, 0, 1, 1], [A, B, B, A, C], [at(0), at(20), at(70), at(0, 7), at(50)])


def test_counts_by_image_and_category():
    counts = count_boxes(TRUTH, PREDICTED, (0.5, 0.95))
    assert list(zip(counts.image.tolist(), counts.category.tolist(), strict=True)) == [
        (0, A),
        (0, B),
        (1, A),
        (1, C),
        (2, B),
    ]
    assert counts.truths.tolist() == [1, 2, 1, 0, 1]
    assert counts.predictions.tolist() == [1, 2, 1, 1, 0]
    assert counts.hits.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_micro():
    result = micro(count_boxes(TRUTH, PREDICTED, (0.5, 0.95)))
    assert result.precision == pytest.approx([3 / 5, 2 / 5])
    assert result.recall == pytest.approx([3 / 5, 2 / 5])
    assert result.f1 == pytest.approx([3 / 5, 2 / 5])
    assert result.mean_f1 == pytest.approx(1 / 2)


def test_categories_and_macro():
    categories = by_category(count_boxes(TRUTH, PREDICTED, (0.5, 0.95)), 4)
    assert categories.truths.tolist() == [2, 3, 0, 0]
    assert categories.predictions.tolist() == [2, 2, 1, 0]
    assert categories.hits.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0]]
    assert categories.images_with.tolist() == [2, 2, 0, 0]
    assert categories.missed_images.tolist() == [0, 1, 0, 0]
    assert categories.imagined_images.tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(category_f1(categories), [[1, 2 / 5, 0, np.nan], [1 / 2, 2 / 5, 0, np.nan]])
    result = macro(categories, (0.5, 0.95))
    assert result.f1 == pytest.approx([(1 + 2 / 5 + 0) / 3, (1 / 2 + 2 / 5 + 0) / 3])
    assert result.precision == pytest.approx([(1 + 1 / 2 + 0) / 3, (1 / 2 + 1 / 2 + 0) / 3])
    assert result.recall == pytest.approx([(1 + 1 / 3) / 2, (1 / 2 + 1 / 3) / 2])


def test_default_thresholds():
    assert micro(count_boxes(TRUTH, PREDICTED)).thresholds == IOU_THRESHOLDS


def test_points():
    points = Points.of([0, 0, 0], [A, B, B], [[5, 5], [25, 5], [26, 5]])
    result = micro(count_points(TRUTH, points))
    assert (result.precision.tolist(), result.recall.tolist()) == ([2 / 3], [2 / 5])


@pytest.mark.parametrize(
    ("truth", "predicted", "precision", "recall", "f1"),
    [
        (NO_BOXES, NO_BOXES, math.nan, math.nan, math.nan),
        (TRUTH, NO_BOXES, math.nan, 0.0, 0.0),
        (NO_BOXES, PREDICTED, 0.0, math.nan, 0.0),
    ],
)
def test_empty(truth, predicted, precision, recall, f1):
    counts = count_boxes(truth, predicted, [0.5])
    for result in (micro(counts), macro(by_category(counts, 4), [0.5])):
        np.testing.assert_array_equal(
            [result.precision[0], result.recall[0], result.f1[0], result.mean_f1], [precision, recall, f1, f1]
        )


def test_no_categories_at_all():
    categories = by_category(count_boxes(NO_BOXES, NO_BOXES, [0.5]), 0)
    assert categories.hits.shape == (1, 0)
    assert math.isnan(macro(categories, [0.5]).mean_f1)


def test_a_category_beyond_the_list():
    with pytest.raises(ValueError, match="category 2 of 2"):
        by_category(count_boxes(TRUTH, PREDICTED), 2)
