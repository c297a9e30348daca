"""Times until runs reach a target, where some do not within their budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

_MEDIAN = 0.5


@dataclass(frozen=True)
class TimesToTarget:
    """Runs that reach a target or not.

    A run that does not reach it is censored at the end of its budget. So is one that diverges: it would not
    have reached the target later, which censoring at the divergence would let it.

    Attributes:
        times: (n,), when each reached the target; infinite where it did not.
        budget: when observation ended.
    """

    times: tuple[float, ...]
    budget: float

    @property
    def reached(self) -> int:
        """How many did."""
        return int(np.isfinite(self.times).sum())

    @cached_property
    def _survival(self) -> stats._distn_infrastructure.rv_frozen:
        reached = np.isfinite(self.times)
        observed = np.where(reached, self.times, self.budget)
        data = stats.CensoredData(uncensored=observed[reached], right=observed[~reached])
        return stats.ecdf(data).sf

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the Kaplan–Meier estimate of the share of runs not there yet: times, and S(t) from each.

        References:
            Kaplan & Meier, Nonparametric Estimation from Incomplete Observations, JASA, 1958.
        """
        steps = self._survival
        events = np.diff(np.concatenate([[1.0], steps.probabilities])) < 0
        return (
            np.concatenate([[0.0], steps.quantiles[events]]),
            np.concatenate([[1.0], steps.probabilities[events]]),
        )

    @property
    def median(self) -> float:
        """The time at which half of the runs are there; infinite where that is beyond the budget."""
        return _first_below(*self.curve())

    def median_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where the pointwise band of the curve crosses one half; ends may be infinite, or NaN for one run.

        References:
            Brookmeyer & Crowley, A Confidence Interval for the Median Survival Time, Biometrics, 1982.
        """
        if len(self.times) < 2:
            return math.nan, math.nan
        if not self.reached:
            return math.inf, math.inf
        times = self._survival.quantiles
        with warnings.catch_warnings():  # where all runs are there the band is not defined: they are below it
            warnings.simplefilter("ignore", RuntimeWarning)
            band = self._survival.confidence_interval(confidence, method="log-log")
        low, high = (np.nan_to_num(end.probabilities, nan=0.0) for end in (band.low, band.high))
        return _first_below(times, low), _first_below(times, high)

    @property
    def restricted(self) -> np.ndarray:
        """min(time, budget) of each run, (n,)."""
        return np.minimum(self.times, self.budget)

    @property
    def restricted_mean(self) -> float:
        """The area below the curve up to the budget: the mean time to the target within it.

        References:
            Royston & Parmar, Restricted Mean Survival Time, BMC Medical Research Methodology, 2013.
        """
        times, shares = self.curve()
        return float((np.diff(np.append(times, self.budget)) * shares).sum())


def _first_below(times: np.ndarray, shares: np.ndarray) -> float:
    found = np.flatnonzero(shares <= _MEDIAN)
    return float(times[found[0]]) if len(found) else math.inf


def paired_p_value(
    one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray, seed: int = 0
) -> float:
    """Of the mean difference of two samples paired by seed, by exchanging within pairs: two-sided.

    Exact where there are at most 13 pairs, all 2ⁿ exchanges; else of 9,999 random ones. The least that n
    pairs can give is 2^(1 − n). NaN for a single pair.
    """
    if len(one) < 2:
        return math.nan
    difference = np.subtract(one, other)
    found = stats.permutation_test(
        (difference,),
        lambda d, axis: d.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, in the same order; NaN stays, and does not count.

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statistics, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, most = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        most = max(most, min((len(known) - rank) * p, 1.0))
        adjusted[place] = most
    return adjusted


def first_time(times: Sequence[float], values: Sequence[float], target: float) -> float:
    """When a curve first reaches a target, straight lines between its points; infinite where it never does.

    >>> first_time([0, 10, 20], [-5.0, -3.0, -1.0], -2.0)
    15.0
    """
    for k, value in enumerate(values):
        if not value >= target:
            continue
        if k == 0 or not math.isfinite(values[k - 1]):
            return float(times[k])
        share = (target - values[k - 1]) / (value - values[k - 1])
        return float(times[k - 1] + share * (times[k] - times[k - 1]))
    return math.inf
