import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from model.metrics import matching
from model.metrics.assignment import NOBODY
from model.metrics.iou import IOU_THRESHOLDS, iou_matrix
from model.metrics.masks import Mask
from model.metrics.matching import match_boxes, match_points
from model.metrics.shapes import Boxes, Masks, Points

NO_BOXES = Boxes.of([], [], [])


def scenes(seed: int, images: int, boxes: int, categories: int, jitter: float) -> tuple[Boxes, Boxes]:
    """Crowded scenes in random row order: jittered copies of the truths, some twice, some missing, some of another category."""
    random = np.random.default_rng(seed)
    count = images * boxes
    image, category = random.integers(0, images, count), random.integers(0, categories, count)
    size, corner = random.uniform(5, 60, (count, 2)), random.uniform(-20, 100, (count, 2))
    truth = np.concatenate([corner, corner + size], axis=1)
    rows = random.integers(0, count, count)
    said = truth[rows] + random.normal(0, jitter, (count, 4))
    named = np.where(random.random(count) < 0.9, category[rows], random.integers(0, categories, count))
    return Boxes.of(image, category, truth), Boxes.of(image[rows], named, said)


def most_pairs(truth: Boxes, predicted: Boxes, threshold: float) -> int:
    """scipy's maximum, on the whole matrix."""
    same = (predicted.image[:, None] == truth.image) & (predicted.category[:, None] == truth.category)
    graph = csr_array(same & (iou_matrix(predicted.boxes_xyxy, truth.boxes_xyxy) >= threshold))
    return int((maximum_bipartite_matching(graph) >= 0).sum())


def assert_one_to_one(truth: Boxes, predicted: Boxes, matched: np.ndarray, threshold: float) -> None:
    rows = np.flatnonzero(matched != NOBODY)
    partners = matched[rows]
    assert len(np.unique(partners)) == len(partners)
    assert (truth.image[partners] == predicted.image[rows]).all()
    assert (truth.category[partners] == predicted.category[rows]).all()
    ious = np.diagonal(iou_matrix(predicted.boxes_xyxy[rows], truth.boxes_xyxy[partners]))
    assert (ious >= threshold).all()


@pytest.mark.parametrize("categories", [1, 4])
@pytest.mark.parametrize("jitter", [0.0, 2.0, 8.0])
@pytest.mark.parametrize("seed", range(4))
def test_as_many_pairs_as_possible(seed, jitter, categories):
    truth, predicted = scenes(seed, images=8, boxes=30, categories=categories, jitter=jitter)
    thresholds = (0.05, 0.3, *IOU_THRESHOLDS, 1.0)
    for threshold, matched in zip(thresholds, match_boxes(truth, predicted, thresholds), strict=True):
        assert_one_to_one(truth, predicted, matched, threshold)
        assert (matched != NOBODY).sum() == most_pairs(truth, predicted, threshold)


def test_chunks_change_nothing(monkeypatch):
    truth, predicted = scenes(7, images=60, boxes=12, categories=3, jitter=3.0)
    whole = match_boxes(truth, predicted, (0.5, 0.75))
    monkeypatch.setattr(matching, "CHUNK_ROWS", 7)
    monkeypatch.setattr(matching, "CHUNK_PAIRS", 3)
    assert (match_boxes(truth, predicted, (0.5, 0.75)) == whole).all()


def test_widely_scattered_coordinates_lose_nothing():
    """Images of very different scale side by side, where rounding of positions is coarsest."""
    truth, predicted = scenes(3, images=6, boxes=25, categories=2, jitter=1.0)
    scale = (10.0 ** (truth.image * 2 - 4))[:, None], (10.0 ** (predicted.image * 2 - 4))[:, None]
    truth = Boxes.of(truth.image, truth.category, truth.boxes_xyxy * scale[0])
    predicted = Boxes.of(predicted.image, predicted.category, predicted.boxes_xyxy * scale[1])
    assert (match_boxes(truth, predicted, [0.5])[0] != NOBODY).sum() == most_pairs(truth, predicted, 0.5)


def test_greedy_would_lose_a_pair():
    """The first prediction fits both truths, the first truth best; the second fits only the first truth."""
    truth = Boxes.of([0, 0], [0, 0], [[0, 0, 100, 100], [30, 0, 130, 100]])
    predicted = Boxes.of([0, 0], [0, 0], [[10, 0, 110, 100], [-30, 0, 70, 100]])
    assert match_boxes(truth, predicted, [0.5]).tolist() == [[1, 0]]


def test_a_threshold_is_met_by_an_equal_iou():
    truth, predicted = Boxes.of([0], [0], [[0, 0, 10, 10]]), Boxes.of([0], [0], [[0, 0, 5, 10]])
    assert match_boxes(truth, predicted, (0.5, 0.51)).tolist() == [[0], [NOBODY]]


def test_neither_other_images_nor_other_categories():
    truth = Boxes.of([0, 1], [0, 0], [[0, 0, 10, 10]] * 2)
    predicted = Boxes.of([2, 0, 1], [0, 1, 0], [[0, 0, 10, 10]] * 3)
    assert match_boxes(truth, predicted, [0.5]).tolist() == [[NOBODY, NOBODY, 1]]


def test_boxes_without_area_match_nothing():
    odd: list[list[float]] = [[5, 5, 5, 5], [10, 10, 0, 0], [np.nan, 0, 10, 10], [0, 0, np.inf, 10], [0, 0, 10, 10]]
    boxes = Boxes.of([0] * 5, [0] * 5, odd)
    assert match_boxes(boxes, boxes, [0.5]).tolist() == [[NOBODY] * 4 + [4]]


def test_empty():
    one = Boxes.of([3], [2], [[0, 0, 1, 1]])
    assert match_boxes(NO_BOXES, NO_BOXES, [0.5]).shape == (1, 0)
    assert match_boxes(one, NO_BOXES, [0.5, 0.9]).shape == (2, 0)
    assert match_boxes(NO_BOXES, one, [0.5]).tolist() == [[NOBODY]]


@pytest.mark.parametrize("thresholds", [[], [0.0], [-0.1], [0.5, 1.1], [np.nan]])
def test_thresholds_out_of_range(thresholds):
    with pytest.raises(ValueError, match="IoU thresholds"):
        match_boxes(NO_BOXES, NO_BOXES, thresholds)


def test_points_in_boxes():
    truth = Boxes.of([0, 0, 1], [0, 0, 0], [[0, 0, 10, 10], [0, 0, 30, 30], [0, 0, 10, 10]])
    places: list[list[float]] = [[10, 10], [5, 5], [31, 5], [np.nan, 5], [5, 5]]
    points = Points.of([0, 0, 0, 1, 1], [0, 0, 0, 0, 1], places)
    matched = match_points(truth, points)
    assert sorted(matched[:2].tolist()) == [0, 1]  # both lie in both boxes, edges included
    assert matched[2:].tolist() == [NOBODY] * 3


def test_points_leave_the_smaller_box_to_whom_only_it_holds():
    truth = Boxes.of([0, 0], [0, 0], [[0, 0, 10, 10], [0, 0, 30, 30]])
    assert match_points(truth, Points.of([0, 0], [0, 0], [[5, 5], [20, 20]])).tolist() == [0, 1]


def test_points_in_masks():
    left, right = np.zeros((2, 4, 8), dtype=bool)
    left[:, :4], right[:, 4:] = True, True
    truth = Masks.of([0, 0, 1], [0, 0, 0], tuple(Mask.from_pixels(pixels) for pixels in (left, right, left)))
    places: list[list[float]] = [[3.9, 0], [4, 3.5], [4, 3], [7, 0], [0, 0]]
    points = Points.of([0, 0, 0, 1, 2], [0, 0, 1, 0, 0], places)
    assert match_points(truth, points).tolist() == [0, 1, NOBODY, NOBODY, NOBODY]


def test_no_points_and_nothing_to_point_at():
    no_points = Points.of([], [], [])
    assert match_points(NO_BOXES, no_points).shape == (0,)
    assert match_points(Masks.of([], [], ()), Points.of([0], [0], [[1, 1]])).tolist() == [NOBODY]
    assert match_points(Boxes.of([0], [0], [[0, 0, 1, 1]]), no_points).shape == (0,)
