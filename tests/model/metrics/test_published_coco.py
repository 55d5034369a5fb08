import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.metrics.published import Published
from model.metrics.published_coco import coco
from model.metrics.shapes import Boxes

NO_BOXES = Boxes.of([], [], [])
BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def pycocotools_numbers(
    truth: Boxes, predicted: Boxes, crowd: np.ndarray, images: int, categories: int
) -> list[list[float]]:
    """Precision and recall at each IoU and of the means, after the protocol's definition, from pycocotools' tables.

    Its recall thresholds are moved up by the last bit, so that a recall equal to one does not reach it: what the published numbers need.
    """

    def annotation(number: int, image: int, category: int, box: list[float], **more: object) -> dict[str, object]:
        x0, y0, x1, y1 = box
        return {
            "id": number + 1,
            "image_id": image,
            "category_id": category,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            **more,
        }

    rows = zip(truth.image.tolist(), truth.category.tolist(), truth.boxes_xyxy.tolist(), crowd.tolist(), strict=True)
    shown = {(image, category) for image, category in zip(truth.image.tolist(), truth.category.tolist(), strict=True)}
    said = zip(predicted.image.tolist(), predicted.category.tolist(), predicted.boxes_xyxy.tolist(), strict=True)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": image, "width": 1000, "height": 1000} for image in range(images)],
            "categories": [{"id": category, "name": str(category)} for category in range(categories)],
            "annotations": [annotation(number, *row[:3], iscrowd=int(row[3])) for number, row in enumerate(rows)],
        }
        dataset.createIndex()
        detections = [
            annotation(number, *row, score=0.2) for number, row in enumerate(row for row in said if row[:2] in shown)
        ]
        evaluation = COCOeval(dataset, dataset.loadRes(detections), "bbox")
        evaluation.params.recThrs = np.nextafter(evaluation.params.recThrs, 2)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.zeros((10, categories))
    for category in range(categories):
        value = 0.0
        for level in range(10):
            above = [p for p in evaluation.eval["precision"][level, :, category, 0, 2] if p > 0]
            value = precision[level, category] = above[-1] if above else value
    recall = np.maximum(evaluation.eval["recall"][:, :, 0, 2], 0)
    return [
        means_above_zero(np.concatenate([table, table.mean(axis=0, keepdims=True)])) for table in (precision, recall)
    ]


def means_above_zero(table: np.ndarray) -> list[float]:
    return [row[row > 0].mean() if (row > 0).any() else 0.0 for row in table]


def numbers(published: Published) -> list[list[float]]:
    return [[*published.precision, published.mean_precision], [*published.recall, published.mean_recall]]


@pytest.mark.parametrize("crowds", [0.0, 0.1])
@pytest.mark.parametrize(("images", "boxes", "categories"), [(30, 12, 4), (12, 4, 8), (4, 5, 30), (1, 400, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(seed, images, boxes, categories, crowds):
    """Few boxes a category, so that round recalls, empty categories and perfect ones occur; one image with more than 100 predictions of a category."""
    random = np.random.default_rng(seed)
    count = images * boxes
    image, category = random.integers(0, images, count), random.integers(0, categories, count)
    corner, size = random.uniform(0, 200, (count, 2)).round(2), random.uniform(5, 80, (count, 2)).round(2)
    box = np.concatenate([corner, corner + size], axis=1)
    rows = random.integers(0, count, count)
    said = np.sort(
        (box[rows] + random.normal(0, 3, (count, 4)) * (random.random((count, 1)) < 0.8)).reshape(-1, 2, 2), axis=1
    ).reshape(-1, 4)
    named = np.where(random.random(count) < 0.85, category[rows], random.integers(0, categories, count))
    crowd = random.random(count) < crowds
    truth, predicted = Boxes.of(image, category, box), Boxes.of(image[rows], named, said)
    ours = numbers(coco(truth, predicted, crowd=crowd))
    np.testing.assert_allclose(ours, pycocotools_numbers(truth, predicted, crowd, images, categories), atol=1e-9)


def test_predictions_of_a_category_that_the_image_does_not_show_are_dropped():
    truth, predicted = Boxes.of([0, 1], [0, 1], [BOX, BOX]), Boxes.of([0, 0, 1, 2], [1, 0, 1, 0], [FAR, BOX, BOX, FAR])
    published = coco(truth, predicted)
    assert published.precision == pytest.approx(np.ones(10))
    assert published.f1 == pytest.approx(np.ones(10))


def test_categories_without_a_hit_do_not_lower_the_means():
    truth, predicted = Boxes.of([0, 0], [0, 1], [BOX, BOX]), Boxes.of([0, 0], [0, 1], [BOX, FAR])
    published = coco(truth, predicted)
    assert (published.mean_precision, published.mean_recall, published.mean_f1) == pytest.approx((1, 1, 1))


def test_precision_of_the_previous_threshold_stays_where_there_is_no_hit():
    """IoU 0.8: hit up to 0.80, at 0.85 and above the value of 0.80 stays for precision, not for recall."""
    published = coco(Boxes.of([0], [0], [BOX]), Boxes.of([0], [0], [[0, 0, 10, 8.05]]))
    assert published.precision == pytest.approx(np.ones(10))
    assert published.recall.tolist() == [1] * 7 + [0] * 3
    assert published.f1.tolist() == pytest.approx([1] * 7 + [0] * 3)
    assert (published.mean_precision, published.mean_recall) == pytest.approx((1, 0.7))


def test_crowds_forgive_and_are_not_asked_for():
    truth = Boxes.of([0, 0], [0, 0], [BOX, [40, 40, 90, 90]])
    predicted = Boxes.of([0, 0, 0], [0, 0, 0], [FAR, FAR, BOX])
    published = coco(truth, predicted, crowd=np.array([False, True]))
    assert (published.mean_precision, published.mean_recall) == pytest.approx((1, 1))
    assert coco(truth, predicted, crowd=np.array([True, True])).mean_f1 == 0


def test_at_most_a_hundred_predictions_of_an_image_and_category():
    late = Boxes.of([0] * 101, [0] * 101, [FAR] * 100 + [BOX])
    assert coco(Boxes.of([0], [0], [BOX]), late).mean_recall == 0
    in_time = Boxes.of([0] * 101, [0] * 101, [FAR] * 99 + [BOX, FAR])
    assert coco(Boxes.of([0], [0], [BOX]), in_time).mean_recall == 1


def test_empty():
    one = Boxes.of([0], [0], [BOX])
    for truth, predicted in ((NO_BOXES, NO_BOXES), (one, NO_BOXES), (NO_BOXES, one)):
        published = coco(truth, predicted)
        assert published.precision.tolist() == published.recall.tolist() == published.f1.tolist() == [0] * 10
        assert (published.mean_precision, published.mean_recall, published.mean_f1) == (0, 0, 0)
