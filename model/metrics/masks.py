"""Masks as COCO run lengths, asked whether they hold a point. Never unpacked to pixels, so a mask costs its outline, not its image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class MaskError(ValueError):
    """Run lengths that do not describe a mask of the given size."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask. ends: where each run ends, column by column from the top left; runs are outside, inside, outside … by turns, the last end is height · width."""

    height_px: int
    width_px: int
    ends: NDArray[np.int64]

    @classmethod
    def from_coco(cls, size: Sequence[int], counts: str | bytes | Sequence[int]) -> "Mask":
        """From COCO's RLE: size (height, width); counts as COCO's compressed string or as the list of run lengths.

        Raises MaskError where the runs do not fill the image exactly or the string is broken.
        """
        height, width = (int(side) for side in size)
        runs = _inflate(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
        if any(run < 0 for run in runs) or sum(runs) != height * width:
            raise MaskError(f"runs cover {sum(runs)} pixels of a {height} × {width} mask")
        return cls(height, width, np.cumsum(np.asarray(runs, dtype=np.int64)))

    @classmethod
    def from_pixels(cls, pixels: NDArray[np.bool_]) -> "Mask":
        """From a (height, width) array of truth values, of any size, 0 included."""
        flat = np.concatenate(([False], pixels.ravel(order="F")))
        changes = np.flatnonzero(flat[1:] != flat[:-1])
        height, width = pixels.shape
        return cls(height, width, np.append(changes, pixels.size).astype(np.int64))

    def holds(self, points_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For (n, 2) pixel positions whether the pixel each falls in (fraction cut off) belongs to the mask: (n,). Outside the image and non-finite: no."""
        points = points_xy.reshape(-1, 2)
        with np.errstate(invalid="ignore"):
            cut = np.trunc(points)
            inside = (cut >= 0).all(axis=1) & (cut[:, 0] < self.width_px) & (cut[:, 1] < self.height_px)
        held = np.zeros(len(points), dtype=np.bool_)
        column, row = cut[inside].astype(np.int64).T
        run = np.searchsorted(self.ends, column * self.height_px + row, side="right")
        held[inside] = run % 2 == 1
        return held


def _inflate(counts: str | bytes) -> list[int]:
    """COCO's compressed run lengths: numbers of 5 bits a character (offset 48, bit 32: more follow, sign from bit 16 of the last), from the fourth on as differences
    to the run two before. Source: maskApi.c of cocodataset/cocoapi, rleFrString."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts.encode("utf-8") if isinstance(counts, str) else counts:
        digit = character - 48
        if not 0 <= digit < 64:
            raise MaskError(f"character {chr(character)!r} in the run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise MaskError("the run lengths end within a number")
    return runs
