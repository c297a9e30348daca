"""The median of timings that follow one another, with an interval that knows of their dependence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

#: Standard errors of ρ that are added to its estimate: of few values it says too little.
_CAUTION = 0.3
_MOST = 0.97  # what is assumed of ρ at most
_FEWEST_BLOCKS = 12  # whose variance is looked at
_DOF = 5.0  # the fewest of Student's quantile
_QUARTILE = 0.6745  # of the normal distribution
_WORTH = 1.3  # independent values, at least: of a drift throughout there is no telling
_LEAST = 3  # timings, below which there is no interval


def timing_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median of positive values in the order measured, and its interval: see `timing_intervals`."""
    value, low, high = timing_intervals(np.asarray(values, dtype=float)[None], confidence)
    return float(value[0]), float(low[0]), float(high[0])


def timing_intervals(
    values: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Medians (N,) of N series of n positive values (N, n), and the ends of their intervals.

    What slows a machine lasts: a timing is like the one before. The long-run variance of the normal scores of
    their ranks, which no spike moves, is that of a first-order autoregression, of the series itself and of
    the means of its blocks of 2, 4, 8, ... values, whichever is largest; their autocorrelations are taken at
    the upper side of what n values can tell. It leaves n_eff of n values, and the ends are the order
    statistics that an interval of n_eff independent values would have, by Student's quantile; further
    out than the extremes they go on linearly in the logarithm, by what half of the values on that side are
    away. Of log-normal autoregressions with spikes it covers 93% and more up to ρ = 0.6 from six values on,
    and up to 0.9 from some 40 on; of six values at ρ = 0.9 about 75%, for they cannot tell. Of independent
    values it covers 98 to 99%, and is 1.3 to 1.8 times as wide as the interval that presumes them so.

    Fewer than three values tell nothing: the ends are 0 and ∞.

    References:
        Marriott & Pope, Bias in the Estimation of Autocorrelations, Biometrika, 1954.
        Flegal & Jones, Batch Means and Spectral Variance Estimators in Markov Chain Monte Carlo, 2010.
    """
    count, n = values.shape
    medians = np.median(values, axis=1)
    if n < _LEAST:
        return medians, np.zeros(count), np.full(count, math.inf)
    ordered = np.sort(np.log(np.maximum(values, 1e-300)), axis=1)
    effective, degrees = _effective(_normal_scores(values), n)
    quantile = special.stdtrit(degrees, 0.5 + confidence / 2)
    # Of a normal distribution the median's deviation is √(π/2)/√n; and that of the values about their own
    # median is too small by what they have in common.
    reach = quantile * np.sqrt(math.pi / 2 / effective / np.maximum(1 - 1 / effective, 0.1))
    at = special.ndtri(np.arange(1, n + 1) / (n + 1))
    middle = np.log(medians)
    ends = [np.exp(_at(ordered, at, middle, sign * reach)) for sign in (-1.0, 1.0)]
    return medians, ends[0], ends[1]


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Of the ranks within each series, ties by their mean rank; 0 where all are equal."""
    from scipy.stats import rankdata

    return special.ndtri(rankdata(values, axis=1) / (values.shape[1] + 1))


def _effective(scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """How many independent values the series is worth, at least 1.3 and at most n, and degrees of freedom."""
    spread = np.maximum(scores.var(axis=1), 1e-12)
    longest, degrees = np.zeros(len(scores)), np.full(len(scores), n - 1.0)
    size = 1
    while size == 1 or n // size >= _FEWEST_BLOCKS:
        blocks = n // size
        means = scores[:, : blocks * size].reshape(len(scores), blocks, size).mean(axis=2)
        rho = _autocorrelation(means)
        inflation = size * means.var(axis=1) / spread * (1 + rho) / (1 - rho)
        larger = inflation > longest
        longest = np.where(larger, inflation, longest)
        degrees = np.where(larger, np.maximum((blocks - 1) * (1 - rho) / (1 + rho), _DOF), degrees)
        size *= 2
    return np.clip(n / np.maximum(longest, 1.0), _WORTH, n), degrees


def _autocorrelation(series: np.ndarray) -> np.ndarray:
    """ρ at lag 1, at the upper side of what so many values can tell, from 0 to 0.97."""
    n = series.shape[1]
    centred = series - series.mean(axis=1, keepdims=True)
    squares = np.maximum((centred**2).sum(axis=1), 1e-300)
    raw = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / squares
    unbiased = np.clip((raw + 1 / n) / max(1 - 3 / n, 0.4), -1.0, 1.0)
    caution = _CAUTION * np.sqrt(np.maximum(1 - unbiased**2, 1 / n) / n)
    return np.clip(unbiased + caution, 0.0, _MOST)


def _at(ordered: np.ndarray, at: np.ndarray, middle: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The ordered values (N, n) at normal scores (N,), beyond the extremes in proportion from the middle."""
    n = len(at)
    place = special.ndtr(where) * (n + 1) - 1
    # Outwards to the next value, as order statistics do it.
    index = np.where(where < 0, np.floor(place), np.ceil(place)).clip(0, n - 1).astype(int)
    inside = np.take_along_axis(ordered, index[:, None], axis=1)[:, 0]
    extreme = np.where(where < 0, ordered[:, 0], ordered[:, -1])
    # A spike is no measure of what lies beyond it: the half of the values on that side is.
    half = np.where(
        where < 0, *(np.median(side, axis=1) for side in (ordered[:, : n // 2], ordered[:, -(n // 2) :]))
    )
    linear = middle + (half - middle) * np.abs(where) / _QUARTILE
    further = np.where(where < 0, np.minimum(extreme, linear), np.maximum(extreme, linear))
    return np.where(np.abs(where) > at[-1], further, inside)
