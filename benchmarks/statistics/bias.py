"""What the norm of a bias can be, from one estimate of it and the covariance of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, stats

_MANY = 1e4  # degrees of freedom, beyond which a noncentral χ² is taken as Gaussian


@dataclass(frozen=True)
class SquaredNorm:
    """‖b‖² as far as one estimate b̂ tells it.

    Attributes:
        squared_norm: ‖b̂‖².
        trace: of the covariance of b̂.
        largest: its largest eigenvalue.
    """

    squared_norm: float
    trace: float = 0.0
    largest: float = 0.0

    @property
    def value(self) -> float:
        """‖b̂‖² less what noise adds to it, 0 where that is all."""
        return max(self.squared_norm - self.trace, 0.0)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of ‖b‖²; see `bias_interval`."""
        low, high = bias_interval(self.squared_norm, self.trace, self.largest, confidence)
        return low**2, high**2


def bias_bound(
    squared_norm: float,
    trace: float,
    largest: float,
    confidence: float = 0.99,
    square_trace: float | None = None,
) -> float:
    """Upper bound for ‖b‖ from one estimate b̂ with ‖b̂‖² = squared_norm.

    The largest u with u² + T − z√(4u²λ + 2Q) ≤ ‖b̂‖², where b̂ has covariance Σ of trace T and largest
    eigenvalue λ: ‖b̂‖² has mean ‖b‖² + T and variance at most 4‖b‖²λ + 2Q, Q = tr Σ².

    Args:
        squared_norm: ‖b̂‖².
        trace: T, of the covariance of b̂ (of the estimate's mean and of the reference together).
        largest: λ.
        confidence: one-sided.
        square_trace: Q; None for its bound λT.
    """
    if not largest > 0:
        return math.sqrt(squared_norm)
    z = float(stats.norm.ppf(confidence))
    q = largest * trace if square_trace is None else square_trace
    # With y = √(4u²λ + 2Q) the condition is a quadratic in y.
    discriminant = max(z**2 + (squared_norm - trace + q / (2 * largest)) / largest, 0.0)
    y = 2 * largest * (z + math.sqrt(discriminant))
    return math.sqrt(max((y**2 - 2 * q) / (4 * largest), 0.0))


def bias_floor(
    squared_norm: float, trace: float, largest: float, confidence: float, square_trace: float
) -> float:
    """Lower bound for ‖b‖, by the same reasoning: the smallest u ≥ 0 with u² + T + z√(4u²λ + 2Q) ≥ ‖b̂‖²."""
    if not largest > 0:
        return math.sqrt(squared_norm)
    z = float(stats.norm.ppf(confidence))
    discriminant = max(z**2 + (squared_norm - trace + square_trace / (2 * largest)) / largest, 0.0)
    y = max(2 * largest * (math.sqrt(discriminant) - z), 0.0)
    return math.sqrt(max((y**2 - 2 * square_trace) / (4 * largest), 0.0))


def bias_interval(
    squared_norm: float, trace: float, largest: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval for ‖b‖ from one estimate b̂ with ‖b̂‖² = squared_norm.

    ‖b̂‖²/λ is taken as a noncentral χ² of T/λ degrees of freedom whose noncentrality is ‖b‖²/λ, and inverted:
    exact where b̂ varies alike in all its directions, or in one alone; else it covers more, T/λ being the
    fewest degrees that T and λ allow and the bias lying where the noise is largest. It beats `bias_bound` and
    `bias_floor` where few directions matter and the bias is near zero.

    Args:
        squared_norm: ‖b̂‖².
        trace: T, of the covariance of b̂.
        largest: λ, its largest eigenvalue.
        confidence: two-sided.
    """
    if not largest > 0:
        return math.sqrt(squared_norm), math.sqrt(squared_norm)
    tail, dof, seen = (1 - confidence) / 2, max(trace / largest, 1.0), squared_norm / largest
    if dof > _MANY or seen > _MANY:
        low = bias_floor(squared_norm, trace, largest, 1 - tail, largest * trace)
        return low, bias_bound(squared_norm, trace, largest, 1 - tail)
    ends = (_noncentrality(seen, dof, level) for level in (1 - tail, tail))
    low, high = (math.sqrt(largest * end) for end in ends)
    return low, high


def _noncentrality(seen: float, dof: float, level: float) -> float:
    """At which a χ² is at most ``seen`` with this probability; 0 where there is none."""
    if stats.chi2.cdf(seen, dof) <= level:
        return 0.0
    most = seen + 20 * math.sqrt(seen + dof) + 40
    found: float = optimize.brentq(lambda nc: stats.ncx2.cdf(seen, dof, nc) - level, 0.0, most)
    return found
