"""What the best of k trials is worth: tuning as a budget that is part of a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

_RESAMPLES = 2000


def expected_best(scores: Sequence[float]) -> np.ndarray:
    """E[the highest of k trials] for k = 1, ..., N, from N trials; (N,).

    The mean over all subsets of k, Σ_i s_(i) C(i − 1, k − 1)/C(N, k), which is unbiased for independent
    trials; drawn with replacement it would not be.

    References:
        Dodge, Gururangan, Card, Schwartz & Smith, Show Your Work, 2019, eq. 7 (with replacement).
        Tang, Lee, Xin, Liu, Yu & Lin, Showing Your Work Doesn't Always Work, 2020, eq. 5.

    >>> expected_best([1.0, 2.0, 3.0]).round(3).tolist()
    [2.0, 2.667, 3.0]
    """
    return np.sort(np.asarray(scores, dtype=float)) @ _weights(len(scores)).T


def expected_best_interval(
    scores: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the bootstrap intervals (percentile) of `expected_best`, (N,) each.

    Of all N trials at once the highest is the highest again more often than not: there the interval is too
    short above, since no resample shows a better trial than those that were run.
    """
    values = np.asarray(scores, dtype=float)
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, len(values)))
    curves = np.sort(drawn, axis=1) @ _weights(len(values)).T
    tail = (1 - confidence) / 2
    low, high = np.quantile(curves, (tail, 1 - tail), axis=0)
    return low, high


def _weights(count: int) -> np.ndarray:
    """(k, i): the share of the subsets of k whose highest is the i-th lowest."""
    place, size = np.arange(1, count + 1), np.arange(1, count + 1)[:, None]
    return special.comb(place - 1, size - 1) / special.comb(count, size)
