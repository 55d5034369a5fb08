import numpy as np

from model.decoding.scoring import geometric_mean_probability


def test_geometric_mean():
    logprobs = np.log([0.9, 0.5, 0.5, 0.25, 0.25, 1.0]).astype(np.float32)
    for starts, counts, expected in (
        ([0, 2], [2, 2], [0.45**0.5, 0.125**0.5]),
        ([1, 5], [4, 1], [(0.5 * 0.5 * 0.25 * 0.25) ** 0.25, 1.0]),
        ([5], [1], [1.0]),
    ):
        score = geometric_mean_probability(logprobs, np.array(starts), np.array(counts))
        np.testing.assert_allclose(score, expected, rtol=1e-6)
        assert score.dtype == np.float32


def test_nan_stays_with_its_own_shape():
    logprobs = np.array([np.nan, -1, -1, -np.inf, -2], np.float32)
    score = geometric_mean_probability(logprobs, np.array([0, 1, 3]), np.array([1, 2, 2]))
    assert np.isnan(score[0]) and np.isclose(score[1], np.exp(-1)) and score[2] == 0


def test_no_shapes():
    assert geometric_mean_probability(np.zeros(0, np.float32), np.zeros(0, int), np.zeros(0, int)).shape == (0,)
