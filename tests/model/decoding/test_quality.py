import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding import quality
from model.decoding.quality import first_of_each, large_boxes, polygons_without_area


@pytest.mark.parametrize(
    ("corners", "flat"),
    [
        ([(0, 0), (10, 0), (10, 10)], False),
        ([(0, 0), (10, 10), (20, 20)], True),
        ([(5, 5), (5, 5), (5, 5)], True),
        ([(5, 5), (5, 5), (9, 5), (9, 9)], False),
        ([(0, 0), (10, 10), (10, 0), (0, 10)], False),  # a figure of eight: its signed area is nothing
        ([(0, 0), (9, 3), (0, 0), (3, 9)], True),  # two lines there and back
        ([(0, 0), (9, 3)], True),
    ],
)
def test_polygons_without_area(corners, flat):
    others = [(1, 1), (2, 2), (7, 2)]
    points, offsets = np.array([*others, *corners, *others]), np.array([0, 3, 3 + len(corners), 6 + len(corners)])
    assert polygons_without_area(points, offsets).tolist() == [False, flat, False]


def test_first_of_each():
    first, counts = first_of_each(np.array([7, 3, 7, 9, 3, 3]))
    assert first.tolist() == [0, 1, 3] and counts.tolist() == [2, 3, 1]


def _large_one_by_one(boxes, classes):
    """The definition, in loops."""
    large = []
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        inside = sum(
            other != index and classes[other] == classes[index] and x0 <= a and y0 <= b and x1 >= c and y1 >= d
            for other, (a, b, c, d) in enumerate(boxes)
        )
        large.append((x1 - x0) * (y1 - y0) > 0.95 * 999 * 999 or inside >= 5)
    return large


boxes_and_classes = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2)),
    max_size=60,
)


@given(boxes_and_classes)
@settings(max_examples=60, deadline=None)
def test_large_boxes_are_those_of_the_definition(drawn):
    boxes = [(x, y, x + width, y + height) for x, y, width, height, _ in drawn]
    classes = [kind for *_, kind in drawn]
    expected = _large_one_by_one(boxes, classes)
    arrays = np.array(boxes).reshape(-1, 4), np.array(classes, np.int64)
    assert large_boxes(*arrays).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "_CONTAINERS", 8)
        assert not (large_boxes(*arrays) & ~np.array(expected, np.bool_)).any()


def test_a_class_of_thousands_is_searched_from_its_largest():
    small = [(x, y, x + 1, y + 1) for x in range(0, 100, 2) for y in range(0, 100, 2)]
    boxes = np.array([*small, (0, 0, 50, 50)])
    assert np.flatnonzero(large_boxes(boxes, np.zeros(len(boxes), np.int64))).tolist() == [len(small)]


def test_almost_the_whole_image():
    boxes = np.array([(0, 0, 999, 999), (20, 0, 999, 970), (40, 0, 999, 970)])
    assert large_boxes(boxes, np.arange(3)).tolist() == [True, True, False]
