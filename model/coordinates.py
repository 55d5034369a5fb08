"""Quantised coordinates and pixels: Rex-Omni's bins 0–999 to positions in the original image and back. Knows nothing of tokens or text."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 1000  # coordinate tokens <0> … <999>
_LAST = BINS - 1  # training quantises with floor(x / width * 999)

BinEdge = Literal["center", "edge"]


class BinRangeError(ValueError):
    """A bin outside 0–999."""


def bins_to_pixels(bins: ArrayLike, size_px: ArrayLike, *, at: BinEdge = "center") -> NDArray[np.float32]:
    """Pixel positions of quantised x, y pairs.

    bins: (..., 2) integers 0–999, x before y. size_px: width, height of the original image, or (..., 2) of them to go with bins.
    at: "center" is unbiased, since training floors (arXiv 2510.12798, §3); "edge" reproduces the published decoder.
    Returns (..., 2) float32, inside the image. Raises BinRangeError for a bin outside 0–999.
    """
    values: NDArray[Any] = np.asarray(bins)
    if values.size and (values.min() < 0 or values.max() > _LAST):
        raise BinRangeError(f"bins run from 0 to {_LAST}; got {values.min()} to {values.max()}")
    size = np.asarray(size_px, dtype=np.float64)
    if at == "edge":
        return (values * (size / _LAST)).astype(np.float32)
    # Only bin 999's centre lies outside the image; it is clipped to the border.
    return np.asarray(np.minimum((values + 0.5) * (size / _LAST), size), dtype=np.float32)


def pixels_to_bins(pixels: ArrayLike, size_px: ArrayLike) -> NDArray[np.int32]:
    """Bins of pixel positions, as training quantises: floor(x / width * 999), positions outside the image moved to its border.

    pixels: (..., 2) x, y in the original image; size_px as in bins_to_pixels. Returns (..., 2) int32. The inverse of bins_to_pixels at "center".
    """
    scaled = np.asarray(pixels, dtype=np.float64) * (_LAST / np.asarray(size_px, dtype=np.float64))
    return np.clip(np.floor(scaled), 0, _LAST).astype(np.int32)
