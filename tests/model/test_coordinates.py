import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.coordinates import BinRangeError, bins_to_pixels, pixels_to_bins


@pytest.mark.parametrize(
    ("bins", "at", "pixels"),
    [
        ([0, 0], "center", [0.5 / 999 * 640, 0.5 / 999 * 480]),
        ([0, 0], "edge", [0, 0]),
        ([999, 999], "center", [640, 480]),  # its centre lies outside: clipped
        ([999, 999], "edge", [640, 480]),
        (
            [[12, 42], [512, 612]],
            "center",
            [[12.5 / 999 * 640, 42.5 / 999 * 480], [512.5 / 999 * 640, 612.5 / 999 * 480]],
        ),
        ([[12, 42], [512, 612]], "edge", [[12 / 999 * 640, 42 / 999 * 480], [512 / 999 * 640, 612 / 999 * 480]]),
    ],
)
def test_bins_to_pixels(bins, at, pixels):
    result = bins_to_pixels(np.array(bins), (640, 480), at=at)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, pixels, rtol=1e-6)


def test_each_pair_may_have_its_own_size():
    np.testing.assert_allclose(bins_to_pixels([[999, 999], [999, 999]], [[10, 20], [30, 40]]), [[10, 20], [30, 40]])


@pytest.mark.parametrize("bins", [[-1, 0], [0, 1000]])
def test_bins_out_of_range(bins):
    with pytest.raises(BinRangeError, match="0 to 999"):
        bins_to_pixels(bins, (640, 480))


def test_no_bins():
    assert bins_to_pixels(np.zeros((0, 2), int), (640, 480)).shape == (0, 2)


def test_positions_outside_the_image_move_to_its_border():
    assert pixels_to_bins([[-5, 500], [640, 0]], (640, 480)).tolist() == [[0, 999], [999, 0]]


@given(st.integers(0, 999), st.integers(0, 999), st.integers(1, 20_000), st.integers(1, 20_000))
def test_bins_survive_pixels(x, y, width, height):
    assert pixels_to_bins(bins_to_pixels([x, y], (width, height)), (width, height)).tolist() == [x, y]
