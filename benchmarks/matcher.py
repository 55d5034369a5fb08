"""Detections matched per CPU second at one threshold, on sparse and on crowded images. `python -m benchmarks.matcher` prints one line of JSON."""

import json
import time
from collections.abc import Callable, Sequence

import numpy as np

from model.metrics.class_aware import count_boxes
from model.metrics.matching import match_boxes
from model.metrics.shapes import Boxes

DETECTIONS = 500_000
THRESHOLD = 0.5
REPEATS = 3
# name: boxes an image, categories
SCENES = {"sparse": (10, 8), "crowded": (100, 8), "one_category": (100, 1)}


def measure() -> dict[str, float]:
    """For each kind of scene detections per CPU second, the median of three: matching alone, and with counts by image and category."""
    results: dict[str, float] = {}
    for name, (boxes, categories) in SCENES.items():
        truth, predicted = scenes(DETECTIONS // boxes, boxes, categories)
        results[f"matched_per_cpu_second_{name}"] = len(predicted) / _cpu_seconds(match_boxes, truth, predicted)
        results[f"counted_per_cpu_second_{name}"] = len(predicted) / _cpu_seconds(count_boxes, truth, predicted)
    return {name: round(value) for name, value in results.items()}


def scenes(images: int, boxes: int, categories: int) -> tuple[Boxes, Boxes]:
    """Truths of 15–150 px in 640 × 480 images, and predictions: nine of ten truths, 5 px off a side, and one of ten said twice."""
    random = np.random.default_rng(0)
    count = images * boxes
    image, category = np.repeat(np.arange(images), boxes), random.integers(0, categories, count)
    size = random.uniform(15, 150, (count, 2))
    corner = random.uniform(0, 1, (count, 2)) * (np.array([640, 480]) - size)
    truth = np.concatenate([corner, corner + size], axis=1)
    said = truth + random.normal(0, 5, truth.shape)
    rows = np.sort(np.concatenate([np.flatnonzero(random.random(count) < share) for share in (0.9, 0.1)]))
    return Boxes.of(image, category, truth), Boxes.of(image[rows], category[rows], said[rows])


def _cpu_seconds(action: Callable[[Boxes, Boxes, Sequence[float]], object], truth: Boxes, predicted: Boxes) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action(truth, predicted, [THRESHOLD])
        times.append(time.process_time() - start)
    return sorted(times)[REPEATS // 2]


if __name__ == "__main__":
    print(json.dumps(measure()))
