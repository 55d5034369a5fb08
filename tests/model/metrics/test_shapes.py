import numpy as np
import pytest

from model.metrics.masks import Mask
from model.metrics.shapes import Boxes, Masks, Points, ShapeColumnsError


def test_empty_columns_have_their_shape():
    assert Boxes.of([], [], []).boxes_xyxy.shape == (0, 4)
    assert Points.of([], [], []).points_xy.shape == (0, 2)
    assert len(Masks.of([], [], ())) == 0


def test_narrower_types_become_the_metrics_own():
    boxes = Boxes.of(np.array([1], np.int32), np.array([2], np.uint16), np.ones((1, 4), np.float32))
    assert [str(column.dtype) for column in (boxes.image, boxes.category, boxes.boxes_xyxy)] == [
        "int64",
        "int64",
        "float64",
    ]


@pytest.mark.parametrize(
    ("image", "category", "boxes"),
    [
        ([0], [0, 1], np.ones((1, 4))),
        ([0], [0], np.ones((2, 4))),
        ([0], [0], np.ones((1, 2))),
        ([0], [0], []),
        ([-1], [0], np.ones((1, 4))),
        ([0], [-1], np.ones((1, 4))),
        ([[0]], [[0]], np.ones((1, 4))),
    ],
)
def test_columns_that_do_not_belong_together(image, category, boxes):
    with pytest.raises(ShapeColumnsError):
        Boxes.of(image, category, boxes)


def test_as_many_masks_as_rows():
    with pytest.raises(ShapeColumnsError):
        Masks.of([0, 1], [0, 0], (Mask.from_pixels(np.ones((1, 1), dtype=bool)),))
