"""The size at which the model sees an image: Qwen2.5-VL's smart resize, and how many visual tokens that costs. Touches no pixels."""

import math
from dataclasses import dataclass

MAX_ASPECT = 200  # Qwen2.5-VL's own limit on the longer side over the shorter


class ImageAspectError(ValueError):
    """The image is too long and thin for the model."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds on the pixels the model sees. factor: the side of one visual token's cell, both sides become multiples of it.

    The defaults are Rex-Omni's published ones: 16 to 2,560 cells of 28×28 pixels.
    """

    min_pixels: int = 16 * 28 * 28
    max_pixels: int = 2560 * 28 * 28
    factor: int = 28

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} must be positive and at most max_pixels {self.max_pixels}")
        if self.max_pixels < self.factor**2:
            raise ValueError(
                f"max_pixels {self.max_pixels} is less than one cell of {self.factor}×{self.factor} pixels"
            )

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, in pixels, at which the model sees an image of width × height: what `smart_resize` of transformers gives.

        The aspect is kept as nearly as multiples of factor allow. Extreme aspects and narrow limits can end above max_pixels or below min_pixels,
        there as here. Raises ImageAspectError beyond 1:200.
        """
        if max(width, height) / min(width, height) > MAX_ASPECT:
            raise ImageAspectError(f"{width}×{height} pixels: one side is more than {MAX_ASPECT} times the other")
        cell = self.factor
        # Python rounds halves to even, and so does the original: 42 px are 2 cells, 70 px are 2.
        fitted_width, fitted_height = round(width / cell) * cell, round(height / cell) * cell
        if fitted_width * fitted_height > self.max_pixels:
            shrink = math.sqrt((height * width) / self.max_pixels)
            fitted_width = max(cell, math.floor(width / shrink / cell) * cell)
            fitted_height = max(cell, math.floor(height / shrink / cell) * cell)
        elif fitted_width * fitted_height < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            fitted_width = math.ceil(width * grow / cell) * cell
            fitted_height = math.ceil(height * grow / cell) * cell
        return fitted_width, fitted_height

    def visual_tokens(self, width: int, height: int) -> int:
        """Tokens of an image that is already width × height, as fit gives them."""
        return (width // self.factor) * (height // self.factor)

    @property
    def most_visual_tokens(self) -> int:
        """The most tokens fit can lead to, over all images: max_pixels in cells, or more where an extreme aspect or a high min_pixels forces it."""
        most, least = self.max_pixels / self.factor**2, self.min_pixels / self.factor**2  # in cells
        thin = math.isqrt(int(MAX_ASPECT * most))  # shrunk until one side is a single cell, which shrinks no further
        # Grown sides are rounded up. With the longer one i cells, the aspect exceeds (i-1)²/least, so the shorter has at most least/(i-1) cells, rounded up.
        sides = range(max(2, math.ceil(math.sqrt(least))), math.ceil(math.sqrt(MAX_ASPECT * least)) + 1)
        grown = max((side * math.ceil(least / (side - 1)) for side in sides), default=1)
        return max(int(most), thin, grown)
