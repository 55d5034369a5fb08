"""The columns metrics work on: boxes, points and masks of many images, a row each. Knows nothing of where they came from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.metrics.masks import Mask

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class ShapeColumnsError(ValueError):
    """Columns that do not belong together: of different lengths, of a wrong shape, or with negative indices."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of many images. image, category: (n,) indices ≥ 0 in any order; boxes_xyxy: (n, 4) pixels x0, y0, x1, y1.

    Rows of one image keep their order, which is the listed order where a protocol asks for one. A box with a reversed or non-finite side has no area and
    matches nothing, but counts. n may be 0. Raises ShapeColumnsError.
    """

    image: Ints
    category: Ints
    boxes_xyxy: Floats

    @classmethod
    def of(cls, image: ArrayLike, category: ArrayLike, boxes_xyxy: ArrayLike) -> "Boxes":
        """From anything numpy takes; an empty list of boxes is (0, 4)."""
        image_, category_ = _indices(image, category)
        return cls(image_, category_, _coordinates(boxes_xyxy, len(image_), 4))

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class Points:
    """Points of many images. image, category: (n,) indices ≥ 0 in any order; points_xy: (n, 2) pixels. n may be 0. Raises ShapeColumnsError."""

    image: Ints
    category: Ints
    points_xy: Floats

    @classmethod
    def of(cls, image: ArrayLike, category: ArrayLike, points_xy: ArrayLike) -> "Points":
        """From anything numpy takes; an empty list of points is (0, 2)."""
        image_, category_ = _indices(image, category)
        return cls(image_, category_, _coordinates(points_xy, len(image_), 2))

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of many images, image and category as in Boxes, one mask a row. n may be 0. Raises ShapeColumnsError."""

    image: Ints
    category: Ints
    masks: tuple[Mask, ...]

    @classmethod
    def of(cls, image: ArrayLike, category: ArrayLike, masks: tuple[Mask, ...]) -> "Masks":
        """From anything numpy takes."""
        image_, category_ = _indices(image, category)
        if len(masks) != len(image_):
            raise ShapeColumnsError(f"{len(masks)} masks for {len(image_)} image indices")
        return cls(image_, category_, masks)

    def __len__(self) -> int:
        return len(self.image)


def _indices(image: ArrayLike, category: ArrayLike) -> tuple[Ints, Ints]:
    columns = np.asarray(image, dtype=np.int64), np.asarray(category, dtype=np.int64)
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
        raise ShapeColumnsError(
            f"image {columns[0].shape} and category {columns[1].shape} are not columns of one length"
        )
    if any(len(column) and column.min() < 0 for column in columns):
        raise ShapeColumnsError("image and category are indices from 0")
    return columns


def _coordinates(values: ArrayLike, rows: int, width: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, width)
    if array.shape != (rows, width):
        raise ShapeColumnsError(f"coordinates are {array.shape}, not ({rows}, {width})")
    return array
