import numpy as np
import pytest

from model.metrics.masks import Mask
from model.metrics.published import Published, per_image, pointing, referring
from model.metrics.shapes import Boxes, Masks, Points

A, B, C = range(3)
NO_BOXES = Boxes.of([], [], [])
BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def numbers(published: Published) -> list[float]:
    """Precision, recall and F1 at IoU 0.5 (or the one threshold)."""
    return [float(published.precision[0]), float(published.recall[0]), float(published.f1[0])]


def test_another_named_class_will_do():
    truth = Boxes.of([0, 0], [A, B], [BOX, FAR])
    predicted = Boxes.of([0], [B], [BOX])
    assert numbers(per_image(truth, predicted, 1)) == pytest.approx([1, 1 / 2, 2 / 3])


def test_unnamed_classes_stay_out_of_the_pool_but_lower_precision():
    truth, predicted = Boxes.of([0], [A], [BOX]), Boxes.of([0, 0], [A, C], [FAR, BOX])
    assert numbers(per_image(truth, predicted, 1)) == [0, 0, 0]
    assert numbers(referring(truth, predicted, 1)) == pytest.approx([1 / 2, 1, 2 / 3])
    named_without_a_box = np.array([0]), np.array([C])
    assert numbers(per_image(truth, predicted, 1, also_named=named_without_a_box)) == pytest.approx([1 / 2, 1, 2 / 3])


def test_named_in_another_image_is_not_named():
    truth, predicted = Boxes.of([0, 1], [A, C], [BOX, BOX]), Boxes.of([0], [C], [BOX])
    assert numbers(per_image(truth, predicted, 2)) == [0, 0, 0]


def test_greedy_in_listed_order():
    """The first truth takes the prediction that only the second could do with; a maximum matching would have found both."""
    truth = Boxes.of([0, 0], [A, A], [[0, 0, 100, 100], [30, 0, 130, 100]])
    predicted = Boxes.of([0, 0], [A, A], [[10, 0, 110, 100], [-30, 0, 70, 100]])
    assert numbers(per_image(truth, predicted, 1)) == [0.5, 0.5, 0.5]
    turned = Boxes.of([0, 0], [A, A], truth.boxes_xyxy[::-1])
    assert numbers(per_image(turned, predicted, 1)) == [1, 1, 1]


def test_averages_over_all_images():
    """Image 0 is perfect, 1 has no prediction, 2 has no truth, 3 has neither."""
    truth, predicted = Boxes.of([0, 1], [A, A], [BOX, BOX]), Boxes.of([0, 2], [A, A], [BOX, BOX])
    assert numbers(referring(truth, predicted, 4)) == [1 / 4, 1 / 4, 1 / 4]


def test_mean_is_over_thresholds():
    published = per_image(Boxes.of([0], [A], [BOX]), Boxes.of([0], [A], [[0, 0, 10, 7]]), 1)
    assert published.f1.tolist() == [1] * 5 + [0] * 5
    assert (published.mean_precision, published.mean_recall, published.mean_f1) == (0.5, 0.5, 0.5)


def test_pointing():
    """Two masks of a class share a point's place: the first takes the first point; a point of another class never counts."""
    wide, narrow = np.ones((4, 8), dtype=bool), np.zeros((4, 8), dtype=bool)
    narrow[:, :2] = True
    truth = Masks.of([0, 0, 0], [A, A, B], tuple(Mask.from_pixels(pixels) for pixels in (wide, narrow, wide)))
    in_narrow, outside = [1.9, 3.9], [5.0, 1.0]
    assert numbers(pointing(truth, Points.of([0, 0], [A, A], [in_narrow, outside]), 1)) == pytest.approx(
        [1 / 2, 1 / 3, 2 / 5]
    )
    assert numbers(pointing(truth, Points.of([0, 0], [A, A], [outside, in_narrow]), 1)) == pytest.approx(
        [1, 2 / 3, 4 / 5]
    )
    assert numbers(pointing(truth, Points.of([0], [C], [in_narrow]), 1)) == [0, 0, 0]


def test_empty():
    one, points = Boxes.of([0], [A], [BOX]), Points.of([0], [A], [[1, 1]])
    mask = Masks.of([0], [A], (Mask.from_pixels(np.ones((2, 2), dtype=bool)),))
    for images in (0, 1, 2):
        assert numbers(per_image(NO_BOXES, NO_BOXES, images)) == [0, 0, 0]
        assert numbers(referring(NO_BOXES, NO_BOXES, images)) == [0, 0, 0]
        assert numbers(pointing(Masks.of([], [], ()), Points.of([], [], []), images)) == [0, 0, 0]
    for protocol in (per_image, referring):
        assert numbers(protocol(one, NO_BOXES, 1)) == [0, 0, 0]
        assert numbers(protocol(NO_BOXES, one, 1)) == [0, 0, 0]
    assert numbers(pointing(mask, Points.of([], [], []), 1)) == [0, 0, 0]
    assert numbers(pointing(Masks.of([], [], ()), points, 1)) == [0, 0, 0]


def test_an_image_beyond_the_number():
    with pytest.raises(ValueError, match="image 1 of 1"):
        referring(Boxes.of([1], [A], [BOX]), NO_BOXES, 1)
