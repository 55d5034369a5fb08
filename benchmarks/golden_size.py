"""How wide F1's interval is for a number of golden images: the table of docs/quality.md. Run with `python -m benchmarks.golden_size`; it takes seconds and no model.

Images are made up: 1 + Poisson objects each, found with the image's own probability (Beta, concentration 4: some images are easy, some hard), and as many false alarms
as misses on average. The intervals are the ones a run gets, by model/metrics/intervals.py.
"""

from collections.abc import Sequence

import numpy as np

from model.metrics.class_aware import Counts
from model.metrics.intervals import micro_intervals

IMAGES = (25, 50, 100, 200, 400, 1000)
F1 = (0.6, 0.8, 0.9, 0.95)
OBJECTS = (2, 8)  # an image, on average
CONCENTRATION = 4.0
REPEATS = 30


def interval_width(images: int, f1: float, objects: float, *, repeats: int = REPEATS) -> float:
    """Mean width of the 95 % interval of micro F1 over so many made-up sets."""
    widths = []
    for seed in range(repeats):
        bounds = micro_intervals(made_up(images, f1, objects, seed), images).at[0]
        widths.append(bounds.high - bounds.low)
    return float(np.mean(widths))


def made_up(images: int, f1: float, objects: float, seed: int) -> Counts:
    """One category, one threshold, a row an image."""
    random = np.random.default_rng(seed)
    truths = 1 + random.poisson(objects - 1, images)
    found = random.beta(CONCENTRATION * f1, CONCENTRATION * (1 - f1), images)
    hits = random.binomial(truths, found)
    predictions = hits + random.binomial(truths, 1 - found)
    return Counts((0.5,), np.arange(images), np.zeros(images, np.int64), truths, predictions, hits[np.newaxis])


def table(images: Sequence[int] = IMAGES) -> str:
    """The table in Markdown: a row a number of images, ± half the interval's width."""
    heads = [f"F1 {f1:g}, {objects} objects" for objects in OBJECTS for f1 in F1]
    lines = ["| golden images | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for count in images:
        cells = [f"± {interval_width(count, f1, objects) / 2:.3f}" for objects in OBJECTS for f1 in F1]
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    print(
        f"\nfor comparison with examples/shapes/golden: 48 images of 2.25 objects, F1 0.936: ± {interval_width(48, 0.936, 2.25) / 2:.3f}"
    )
