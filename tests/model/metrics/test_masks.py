import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from model.metrics.masks import Mask, MaskError

PIXELS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 70)))


def every_pixel(mask: Mask) -> np.ndarray:
    y, x = np.mgrid[: mask.height_px, : mask.width_px]
    return mask.holds(np.stack([x.ravel(), y.ravel()], axis=1).astype(float)).reshape(x.shape)


@given(PIXELS)
def test_reads_what_pycocotools_writes(pixels):
    written = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    for counts in (written["counts"], written["counts"].decode()):
        assert (every_pixel(Mask.from_coco(written["size"], counts)) == pixels).all()


@given(PIXELS)
def test_from_pixels(pixels):
    assert (every_pixel(Mask.from_pixels(pixels)) == pixels).all()


def test_run_lengths_as_a_list():
    assert every_pixel(Mask.from_coco((2, 3), [1, 2, 3])).tolist() == [[False, True, False], [True, False, False]]
    assert every_pixel(Mask.from_coco((2, 2), [0, 4])).all()


@pytest.mark.parametrize(
    ("point", "held"),
    [
        ((1.0, 1.0), True),
        ((1.99, 1.99), True),
        ((2.0, 1.0), False),
        ((0.99, 1.0), False),
        ((-0.5, -0.5), False),  # cut to pixel 0, 0, which is outside the mask
        ((-1.0, 1.0), False),
        ((3.0, 1.0), False),  # beyond the image, though the next column's run would be meant
        ((1.0, 3.0), False),
        ((np.nan, 1.0), False),
        ((np.inf, 1.0), False),
    ],
)
def test_points(point, held):
    pixels = np.zeros((3, 3), dtype=bool)
    pixels[1, 1] = True
    assert Mask.from_pixels(pixels).holds(np.array([point])).tolist() == [held]


def test_empty():
    assert Mask.from_pixels(np.zeros((0, 0), dtype=bool)).holds(np.array([[0.0, 0.0]])).tolist() == [False]
    assert Mask.from_coco((0, 0), "").holds(np.empty((0, 2))).shape == (0,)
    assert not every_pixel(Mask.from_pixels(np.zeros((2, 2), dtype=bool))).any()


@pytest.mark.parametrize("counts", [[1, 2], [5], [6, -2], "", "l", "\x00", "é", b"\xff"])
def test_broken_runs(counts):
    with pytest.raises(MaskError):
        Mask.from_coco((2, 2), counts)
