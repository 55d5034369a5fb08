"""How sure the model was: log probabilities of tokens to a score. Uncalibrated."""

import numpy as np
from numpy.typing import NDArray


def geometric_mean_probability(
    logprobs: NDArray[np.float32], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The geometric mean probability of each run of tokens, 0–1.

    logprobs: (tokens,) natural logarithms; starts, counts: (shapes,) the runs, each of one token or more. Returns (shapes,) float32; NaN where a token's log
    probability is NaN (the engine gave none).
    """
    if not len(starts):
        return np.zeros(0, np.float32)
    if (counts == counts[0]).all():
        sums = logprobs[starts[:, None] + np.arange(counts[0])].sum(axis=1, dtype=np.float64)
    else:
        # Every second slice between the bounds is a run; the padding keeps the last bound a valid index.
        bounds = np.stack([starts, starts + counts], axis=1).ravel()
        sums = np.add.reduceat(np.append(logprobs, np.float32(0)).astype(np.float64), bounds)[::2]
    return np.asarray(np.exp(np.minimum(sums / counts, 0)), np.float32)
