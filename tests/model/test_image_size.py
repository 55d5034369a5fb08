import math
import random

import pytest

from model.image_size import ImageAspectError, ImageLimits

CELL = 28
REX_OMNI = ImageLimits()

SIZES = [
    # limits, size, fitted size
    pytest.param(REX_OMNI, (640, 480), (644, 476), id="inside the limits: each side to the nearest multiple"),
    pytest.param(REX_OMNI, (4032, 3024), (1624, 1204), id="12 megapixels shrink below the maximum"),
    pytest.param(REX_OMNI, (100, 80), (140, 112), id="a small one grows to the minimum"),
    pytest.param(REX_OMNI, (1, 1), (112, 112), id="one pixel"),
    pytest.param(REX_OMNI, (42, 434), (56, 448), id="halves round to even: 42 px are 2 cells"),
    pytest.param(REX_OMNI, (70, 406), (56, 392), id="halves round to even: 70 px are 2 cells, not 3"),
    pytest.param(REX_OMNI, (8000, 40), (8008, 28), id="1:200 is allowed"),
    pytest.param(
        ImageLimits(50176, 50176), (100, 150), (196, 280), id="one size only: growing overshoots it, as in the original"
    ),
    pytest.param(ImageLimits(784, 3136), (5600, 28), (784, 28), id="shrinking stops at one cell, above the maximum"),
]


@pytest.mark.parametrize(("limits", "size", "fitted"), SIZES)
def test_fit(limits, size, fitted):
    assert limits.fit(*size) == fitted


def test_fit_equals_transformers_smart_resize():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rng = random.Random(0)
    for limits in (REX_OMNI, ImageLimits(50176, 50176), ImageLimits(3136, 12845056), ImageLimits(784, 784)):
        for _ in range(2000):
            width, height = (round(math.exp(rng.uniform(0, 9))) for _ in range(2))
            if max(width, height) > 200 * min(width, height):
                continue
            expected = smart_resize(height, width, CELL, limits.min_pixels, limits.max_pixels)
            assert limits.fit(width, height) == expected[::-1], (width, height, limits)
            assert limits.visual_tokens(*limits.fit(width, height)) <= limits.most_visual_tokens


@pytest.mark.parametrize("size", [(201, 1), (1, 201), (28000, 100)])
def test_too_long_and_thin(size):
    with pytest.raises(ImageAspectError, match="200 times"):
        REX_OMNI.fit(*size)


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        pytest.param(REX_OMNI, 2560, id="the maximum, where nothing forces more"),
        pytest.param(ImageLimits(50176, 50176), 128, id="a high minimum: 2 × 64 cells of a 1:63 image"),
        pytest.param(ImageLimits(3136, 12845056), 16384, id="Qwen2.5-VL's stock limits"),
    ],
)
def test_most_visual_tokens(limits, tokens):
    assert limits.most_visual_tokens == tokens


@pytest.mark.parametrize("limits", [(0, 100), (200, 100), (100, 783)])
def test_limits_that_fit_nothing(limits):
    with pytest.raises(ValueError, match="pixels"):
        ImageLimits(*limits)
