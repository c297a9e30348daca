"""The ratio of two variances, with an interval that uses what the two estimates share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize

from .intervals import student_quantile
from .moments import Moments
from .replicates import MAX_SKEWNESS, MIN_REPLICATES, fewest_replicates, needed_replicates

#: Replicates of each below which coverage falls to 91%: two errors have to be known, and what they share.
FEWEST = 2 * MIN_REPLICATES
_STEP = 1.1
_FURTHEST = 1e12  # a ratio this many times the estimate is as good as unbounded


@dataclass(frozen=True)
class Ratio:
    """V_A / V_B with its interval.

    Attributes:
        value: the ratio of the estimates; infinite for V_B = 0, NaN for 0/0.
        ci_low: lower end, 0 when nothing above it is excluded.
        ci_high: upper end, infinite when V_B cannot be told from 0 at this confidence.
        needed: replicates of each that would be enough, or None when these are.
    """

    value: float
    ci_low: float
    ci_high: float
    needed: int | None


@dataclass(frozen=True)
class JointMoments:
    """Two estimates V̂_A and V̂_B from common random numbers.

    Third cumulants of the estimates are those of a contribution over n²; cumulants of independent data
    add, so for a batch each entry is a sum over data.

    Attributes:
        a: of V̂_A.
        b: of V̂_B.
        covariance: Cov(V̂_A, V̂_B), which is cov(u_A, u_B)/n.
        aab: E (ΔV̂_A)² ΔV̂_B, which is E (Δu_A)² Δu_B / n².
        abb: E ΔV̂_A (ΔV̂_B)².
    """

    a: Moments
    b: Moments
    covariance: float = 0.0
    aab: float = 0.0
    abb: float = 0.0

    def difference(self, rho: float) -> Moments:
        """Moments of V̂_A − ρ V̂_B."""
        a, b = self.a, self.b
        variances = a.stderr**2, (rho * b.stderr) ** 2
        squared = max(sum(variances) - 2 * rho * self.covariance, 0.0)
        # Rounding leaves something of a difference that is exactly 0: of float32 gradients some 1e-7 of each.
        squared = 0.0 if squared <= 1e-11 * sum(variances) else squared
        third = (
            a.skewness * a.stderr**3
            - 3 * rho * self.aab
            + 3 * rho**2 * self.abb
            - rho**3 * b.skewness * b.stderr**3
        )
        skewness = third / squared**1.5 if squared > 0 else 0.0
        # What is known of the two errors is shared as the draws are: correlated by r², of correlation r.
        both = variances[0] * variances[1]
        shared = (rho * self.covariance) ** 2 / both if both > 0 else 0.0
        parts = [v / math.sqrt(dof) for v, dof in zip(variances, (a.dof, b.dof), strict=True)]
        noise = parts[0] ** 2 + parts[1] ** 2 + 2 * shared * parts[0] * parts[1]
        dof = sum(variances) ** 2 / noise if noise > 0 else math.inf
        return Moments(a.mean - rho * b.mean, math.sqrt(squared), skewness, min(a.n, b.n), dof)


def independent_ratio(a: Moments, b: Moments, confidence: float = 0.95) -> Ratio:
    """V_A / V_B of two measurements that share no draws.

    The interval is that of `paired_ratio` without covariance: unlike a symmetric one on the log
    scale it knows that a heavy tail makes V̂ more likely too low than too high.
    """
    return paired_ratio(JointMoments(a, b), confidence)


def paired_ratio(joint: JointMoments, confidence: float = 0.95) -> Ratio:
    """V_A / V_B of two measurements from common random numbers.

    The interval holds the ρ for which 0 is inside the interval of `hall_interval` for V_A − ρ V_B, as
    Fieller did with Student's t; where the set is not an interval, its part around the estimate.

    References:
        Fieller, Some Problems in Interval Estimation, JRSS B, 1954.
        Hall, On the Removal of Skewness by Transformation, JRSS B, 1992.
    """
    a, b = joint.a, joint.b
    if not (a.mean > 0 and b.mean > 0):
        value = 0.0 if b.mean > 0 else math.inf if a.mean > 0 else math.nan
        return Ratio(
            value, 0.0 if a.stderr > 0 or not a.mean > 0 else value, _open_end(joint), _needed(joint, value)
        )
    value = a.mean / b.mean

    def excess(rho: float) -> float:
        """Positive where ρ is outside the set."""
        return _transformed(joint.difference(rho), confidence)

    low = _boundary(excess, value, 1 / _STEP)
    high = _boundary(excess, value, _STEP)
    return Ratio(
        value, 0.0 if low is None else low, math.inf if high is None else high, _needed(joint, value)
    )


def _transformed(moments: Moments, confidence: float) -> float:
    """|H(t)| less its quantile, t = mean/stderr."""
    quantile = student_quantile(confidence, moments.dof)
    if not moments.stderr > 0:
        return -quantile if moments.mean == 0 else math.inf
    g, t = moments.skewness, moments.mean / moments.stderr
    return abs(t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6) - quantile


def _boundary(excess: Callable[[float], float], value: float, step: float) -> float | None:
    """Where excess first changes sign going outwards from value, or None."""
    inner, growth = value, step
    while 1 / _FURTHEST < inner / value < _FURTHEST:
        outer = inner * growth
        if excess(outer) > 0:
            return _crossing(excess, inner, outer)
        inner, growth = outer, growth**1.5
    return None


def _crossing(excess: Callable[[float], float], inside: float, outside: float) -> float:
    if excess(inside) > 0:  # at the estimate itself, of an extreme skewness or none of whose spread is left
        return inside
    return float(optimize.brentq(lambda rho: min(excess(rho), 1e6), inside, outside, xtol=1e-12 * inside))


def _open_end(joint: JointMoments) -> float:
    """Upper end of a ratio that is 0 or has a 0 below."""
    a, b = joint.a, joint.b
    return 0.0 if a.stderr == a.mean == 0 and b.mean > 0 else math.inf


def _needed(joint: JointMoments, value: float) -> int | None:
    """Of the two estimates; where their difference is less skew than they are, it alone counts."""
    n = min(joint.a.n, joint.b.n)
    fewest = FEWEST if MIN_REPLICATES <= n < FEWEST else fewest_replicates(n)
    if not math.isfinite(value):
        return fewest
    skewness = joint.difference(value).skewness
    if abs(skewness) > MAX_SKEWNESS:
        return needed_replicates(skewness, n)
    return fewest
