"""Intervals and bounds for what is measured. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

#: Above this skewness of the estimate an interval is not to be trusted (see `needed_replicates`).
MAX_SKEWNESS = 0.2


@dataclass(frozen=True)
class Moments:
    """An estimated mean of non-negative contributions, with what its interval needs.

    Attributes:
        mean: the estimate.
        stderr: its standard error.
        skewness: skewness of the *estimate*, γ/√n for n iid contributions of skewness γ.
        n: replicates.
    """

    mean: float
    stderr: float
    skewness: float
    n: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Hall's skewness-corrected interval, clipped at 0."""
        low, high = hall_interval(self.mean, self.stderr, self.skewness, confidence)
        return max(low, 0.0), max(high, 0.0)

    @property
    def needed(self) -> int | None:
        """Replicates that would be enough, or None when these are."""
        if abs(self.skewness) <= MAX_SKEWNESS or not math.isfinite(self.skewness):
            return None
        return needed_replicates(self.skewness, self.n)


def hall_interval(mean: float, stderr: float, skewness: float, confidence: float) -> tuple[float, float]:
    """Invert Hall's monotone cubic transformation of the t statistic.

    The ends are mean − stderr·(3/g)[(1 + g(±z − g/6))^{1/3} − 1], g the skewness of the estimate;
    as g → 0 they tend to mean ∓ z·stderr.

    References:
        Hall, On the Removal of Skewness by Transformation, JRSS B, 1992, eq. 2.
    """
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    if not stderr > 0:
        return mean, mean
    ends = [mean - stderr * _inverse_transform(sign * z, skewness) for sign in (1, -1)]
    return ends[0], ends[1]


def _inverse_transform(z: float, g: float) -> float:
    if abs(g) < 1e-5:
        return z
    return 3 / g * (math.cbrt(1 + g * (z - g / 6)) - 1)


def needed_replicates(skewness: float, n: int) -> int:
    """Replicates at which the skewness of the estimate falls to `MAX_SKEWNESS`: 25 γ², γ = skewness·√n."""
    return math.ceil(n * (skewness / MAX_SKEWNESS) ** 2)


def signal_to_noise(squared_norm: float, variance: float, n: int) -> float:
    """‖E ĝ‖ / √tr Cov(ĝ), debiased: the mean of n replicates carries noise of squared norm variance/n.

    Without the correction pure noise would show a ratio of 1/√n.
    """
    if not variance > 0:
        return math.inf if squared_norm > 0 else 0.0
    return math.sqrt(max(squared_norm - variance / n, 0.0) / variance)


def bias_bound(squared_norm: float, trace: float, largest: float, confidence: float = 0.99) -> float:
    """Upper bound for ‖b‖ from one estimate b̂ with ‖b̂‖² = squared_norm.

    The largest u with u² + T − z√(4u²λ + 2λT) ≤ ‖b̂‖², where b̂ has covariance of trace T and largest
    eigenvalue λ: ‖b̂‖² has mean ‖b‖² + T and variance at most 4‖b‖²λ + 2λT (as tr Σ² ≤ λT).

    Args:
        squared_norm: ‖b̂‖².
        trace: T, of the covariance of b̂ (of the estimate's mean and of the reference together).
        largest: λ.
        confidence: one-sided.
    """
    if not largest > 0:
        return math.sqrt(squared_norm)
    z = float(stats.norm.ppf(confidence))
    # With y = √(4u²λ + 2λT) the condition is a quadratic in y.
    discriminant = max(z**2 + (squared_norm - trace / 2) / largest, 0.0)
    y = 2 * largest * (z + math.sqrt(discriminant))
    return math.sqrt(max((y**2 - 2 * largest * trace) / (4 * largest), 0.0))


def product_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(value, low, high) of the product of two independent positive quantities given likewise.

    Half-widths add in quadrature on the log scale.
    """
    value = first[0] * second[0]
    low, high = (
        math.exp(sign * math.hypot(*(_log_ratio(q[end], q[0]) for q in (first, second)))) * value
        for sign, end in ((-1, 1), (1, 2))
    )
    return value, low, high


def _log_ratio(end: float, value: float) -> float:
    return math.log(end / value) if end > 0 and value > 0 else 0.0


def median_interval(values: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval from order statistics (binomial, conservative).

    With fewer than six values no order statistics reach 95%: the ends are then the extremes.
    """
    ordered = sorted(values)
    n = len(ordered)
    below = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)) - 1
    low = max(below, 0)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return middle, ordered[low], ordered[n - 1 - low]
