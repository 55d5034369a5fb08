import numpy as np
import pytest
from pycocotools import mask as coco_mask

from model.metrics.iou import IOU_THRESHOLDS, iou_matrix, iou_rowwise


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [0, 0, 5, 10], 0.5),
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch
        ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0),  # no area
        ([0, 0, 0, 10], [0, 0, 10, 10], 0.0),
        ([10, 10, 0, 0], [0, 0, 10, 10], 0.0),  # reversed
        ([10, 10, 0, 0], [10, 10, 0, 0], 0.0),
        ([np.nan, 0, 10, 10], [0, 0, 10, 10], 0.0),
        ([0, 0, np.inf, 10], [0, 0, np.inf, 10], 0.0),
    ],
)
def test_pairs(first, second, iou):
    a, b = np.array([first], dtype=float), np.array([second], dtype=float)
    assert iou_rowwise(a, b) == pytest.approx([iou])
    assert iou_matrix(b, a) == pytest.approx(np.array([[iou]]))


def test_equals_pycocotools():
    random = np.random.default_rng(1)
    corner, size = random.uniform(0, 500, (2, 80, 2)), random.uniform(0.5, 300, (2, 80, 2))
    ours = iou_matrix(*np.concatenate([corner, corner + size], axis=2))
    theirs = coco_mask.iou(*np.concatenate([corner, size], axis=2), [0] * 80)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_empty():
    assert iou_matrix(np.empty((0, 4)), np.ones((3, 4))).shape == (0, 3)
    assert iou_matrix(np.ones((3, 4)), np.empty((0, 4))).shape == (3, 0)
    assert iou_rowwise(np.empty((0, 4)), np.empty((0, 4))).shape == (0,)


def test_thresholds_are_the_round_numbers():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
