"""Intersection over union of boxes, and the thresholds it is usually held against."""

import numpy as np

from model.metrics.shapes import Floats

IOU_THRESHOLDS: tuple[float, ...] = tuple(percent / 100 for percent in range(50, 100, 5))  # 0.50, 0.55 … 0.95


def shared_areas(first_xyxy: Floats, second_xyxy: Floats) -> Floats:
    """Area in px² that boxes have in common, by broadcasting: (..., 4) pixels x0, y0, x1, y1 give (...,); 0 where they do not meet."""
    a, b = np.moveaxis(first_xyxy, -1, 0), np.moveaxis(second_xyxy, -1, 0)
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0))


def areas(boxes_xyxy: Floats) -> Floats:
    """Area in px²: (..., 4) gives (...,)."""
    return np.asarray((boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1]))


def iou_rowwise(first_xyxy: Floats, second_xyxy: Floats) -> Floats:
    """IoU of two lists of boxes, row by row or by any broadcasting.

    first_xyxy, second_xyxy: (..., 4) pixels x0, y0, x1, y1. Returns (...,) in 0–1; 0 where a box has a reversed, zero or non-finite side.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shared = shared_areas(first_xyxy, second_xyxy)
        iou = shared / (areas(first_xyxy) + areas(second_xyxy) - shared)
    return np.where((shared > 0) & np.isfinite(iou), iou, 0.0)


def iou_matrix(first_xyxy: Floats, second_xyxy: Floats) -> Floats:
    """IoU of every box of one list with every box of another: (n, 4) and (m, 4) give (n, m); either may be empty."""
    return iou_rowwise(first_xyxy.reshape(-1, 1, 4), second_xyxy.reshape(1, -1, 4))
