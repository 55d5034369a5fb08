"""What is wrong with shapes by their geometry alone: no area, said before, one box over many. Knows no tokens, phrases or tables."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.coordinates import BINS

LARGE_SHARE = 0.95  # of the image's area
LARGE_CONTAINS = 5  # boxes of the same class
# Of a class with more boxes only this many (a power of two), the largest, are tried as containers: it keeps the time linear.
_CONTAINERS = 1024
_PAIRS_AT_ONCE = 1 << 22


def polygons_without_area(points: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each polygon covers nothing: every triangle of its first corner and two neighbours is flat.

    points: (corners, 2) bins; offsets: (polygons + 1,), each polygon with a corner or more. Returns (polygons,). A figure of eight has area, a line back and
    forth has none.
    """
    if len(offsets) < 2:
        return np.zeros(0, np.bool_)
    arms = points - np.repeat(points[offsets[:-1]], np.diff(offsets), axis=0)
    doubled = np.zeros(len(points), np.int64)
    doubled[:-1] = np.abs(arms[:-1, 0] * arms[1:, 1] - arms[:-1, 1] * arms[1:, 0])
    doubled[offsets[1:] - 1] = 0  # the last corner's neighbour belongs to the next polygon
    return np.asarray(np.add.reduceat(doubled, offsets[:-1]) == 0)


def first_of_each(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct key occurs first, ascending, and how often each of these occurs."""
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def number_keys(keys: Sequence[bytes]) -> NDArray[np.int64]:
    """A number for each key, the same for equal ones, counted from 0."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], np.int64)


def large_boxes(boxes: NDArray[np.integer], classes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which boxes probably cover many objects: more than 95 % of the image, or 5 or more other boxes of the same class (borders may touch).

    boxes: (n, 4) bins x0, y0, x1, y1; classes: (n,), boxes of different images in different classes. Returns (n,). Takes time linear
    in n: in a class of more than 1024 boxes only the 1024 largest can be found to contain others.
    """
    bins = boxes.astype(np.int16)
    areas = (bins[:, 2] - bins[:, 0]).astype(np.int64) * (bins[:, 3] - bins[:, 1])
    large = areas > LARGE_SHARE * (BINS - 1) ** 2
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    width = 8
    while width // 2 < sizes.max(initial=0) and width <= _CONTAINERS:
        chosen = (sizes > max(width // 2, LARGE_CONTAINS)) & (sizes <= width)
        _mark_containers(large, bins, order, starts[chosen], sizes[chosen], width)
        width *= 2
    for start, size in zip(starts[sizes > _CONTAINERS], sizes[sizes > _CONTAINERS], strict=True):
        members = order[start : start + size]
        containers = members[np.argpartition(areas[members], size - _CONTAINERS)[size - _CONTAINERS :]]
        for chunk in np.array_split(containers, 1 + len(containers) * size // _PAIRS_AT_ONCE):
            large[chunk] |= _contained(bins[chunk][None], bins[members][None])[0] > LARGE_CONTAINS
    return large


def _mark_containers(
    large: NDArray[np.bool_],
    boxes: NDArray[np.int16],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    width: int,
) -> None:
    """Marks the containers in classes of at most `width` boxes, many classes at once."""
    nowhere = np.array([[-1, -1, BINS, BINS]], np.int16)  # in no box
    padded = np.concatenate([boxes, nowhere])
    at_once = max(1, _PAIRS_AT_ONCE // (width * width))
    for first in range(0, len(starts), at_once):
        column = np.arange(width)
        present = column < sizes[first : first + at_once, None]
        members = np.where(
            present, order[np.minimum(starts[first : first + at_once, None] + column, len(order) - 1)], len(boxes)
        )
        found = present & (_contained(padded[members], padded[members]) > LARGE_CONTAINS)  # a box contains itself
        large[members[found]] = True


def _contained(containers: NDArray[np.int16], boxes: NDArray[np.int16]) -> NDArray[np.int64]:
    """How many boxes lie in each container. containers: (classes, c, 4); boxes: (classes, b, 4). Returns (classes, c)."""
    inside = containers[:, :, None, 0] <= boxes[:, None, :, 0]
    inside &= containers[:, :, None, 1] <= boxes[:, None, :, 1]
    inside &= containers[:, :, None, 2] >= boxes[:, None, :, 2]
    inside &= containers[:, :, None, 3] >= boxes[:, None, :, 3]
    return np.asarray(np.count_nonzero(inside, axis=2))
