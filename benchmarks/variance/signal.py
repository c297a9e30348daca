"""The true gradient against the noise about it: norm, signal-to-noise ratio, cosine of one estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float64
from scipy.stats import binomtest
from torch import Tensor

from ..linalg import trace_of_square
from ..statistics.intervals import hall_interval
from ..statistics.moments import Moments, degrees_of_freedom, mean_moments
from ..statistics.signal_interval import Evidence, norm_interval, ratio_interval
from ..statistics.signal_to_noise import signal_to_noise


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Signal:
    """What one estimate ĝ tells about the true gradient g.

    Attributes:
        norm: ‖g‖, debiased.
        snr: ‖g‖ / √tr Cov(ĝ), debiased.
        cosine: mean of ĝᵀg / (‖ĝ‖ ‖g‖); None when g cannot be told from zero.
    """

    norm: Interval
    snr: Interval
    cosine: Interval | None

    def named(self) -> list[tuple[str, Interval]]:
        """As results call them."""
        found = [("snr", self.snr), ("gradient_norm", self.norm)]
        return found if self.cosine is None else [*found, ("cosine", self.cosine)]


@dataclass(frozen=True)
class Sample:
    """What is known of ĝ beyond its mean and total variance.

    Attributes:
        estimates: a few ĝ.
        variance_along: of ĝᵀw, as a function of w.
        covariance_along: of ĝᵀw with the contribution ‖ĝ − g‖² to the variance.
        parts_along: of the first K replicates, ĝᵀw and the contribution to the variance, each as the parts of
            N independent data that add up to it, up to constants.
    """

    estimates: Float64[Tensor, "N phi"]
    variance_along: Callable[[Float64[Tensor, " phi"]], float]
    covariance_along: Callable[[Float64[Tensor, " phi"]], float]
    parts_along: Callable[[Float64[Tensor, " phi"]], tuple[Float64[Tensor, "N K"], Float64[Tensor, "N K"]]]


def measure_signal(mean: Float64[Tensor, " phi"], sample: Sample, total: Moments) -> Signal:
    """Norm, signal-to-noise ratio and cosine, each with its interval.

    ‖ḡ‖² of the mean ḡ of n replicates exceeds ‖g‖² by tr Cov(ĝ)/n, which is taken off; without that
    pure noise would show a signal-to-noise ratio of 1/√n.

    Args:
        mean: ḡ.
        sample: of the same replicates.
        total: tr Cov(ĝ).
    """
    squared = float(mean.square().sum())
    norm = math.sqrt(max(squared - total.mean / total.n, 0.0))
    ratio = signal_to_noise(squared, total.mean, total.n)
    of_norm, of_ratio = Interval(norm, norm, norm), Interval(ratio, ratio, ratio)
    if total.mean > 0:
        seen = _evidence(mean, sample, total)
        of_norm, of_ratio = Interval(norm, *norm_interval(seen)), Interval(ratio, *ratio_interval(seen))
    return Signal(of_norm, of_ratio, _cosine(mean, sample, of_norm, total))


def _evidence(mean: Float64[Tensor, " phi"], sample: Sample, total: Moments) -> Evidence:
    n, squared = total.n, float(mean.square().sum())
    w = mean / math.sqrt(squared) if squared > 0 else mean
    p, u = (part - part.mean(-1, keepdim=True) for part in sample.parts_along(w))
    spread, fourth = p.square().sum(-1) / max(p.shape[-1] - 1, 1), p.square().square().mean(-1)
    return Evidence(
        squared=squared,
        total=total,
        square_trace=min(float(trace_of_square(sample.estimates - mean)), total.mean**2),
        along=max(sample.variance_along(w), 0.0),
        along_dof=degrees_of_freedom(spread.cpu().numpy(), fourth.cpu().numpy(), n),
        shared=sample.covariance_along(w),
        skewness=_skewness(p, u),
    )


def _skewness(p: Float64[Tensor, "N K"], u: Float64[Tensor, "N K"]) -> Callable[[float, float], float]:
    """Of a Σ p + b Σ u, centred; the N data are independent, so their cumulants add."""
    second = [float(f.mean(-1).sum()) for f in (p * p, p * u, u * u)]
    third = [float(f.mean(-1).sum()) for f in (p**3, p * p * u, p * u * u, u**3)]

    def skewness(a: float, b: float) -> float:
        variance = a * a * second[0] + 2 * a * b * second[1] + b * b * second[2]
        if not variance > 1e-12 * (a * a * second[0] + b * b * second[2]):
            return 0.0
        cube = a**3 * third[0] + 3 * a * a * b * third[1] + 3 * a * b * b * third[2] + b**3 * third[3]
        return cube / variance**1.5

    return skewness


def _cosine(mean: Float64[Tensor, " phi"], sample: Sample, norm: Interval, total: Moments) -> Interval | None:
    """The mean cosine over the estimates kept, each against the mean of all the others."""
    if norm.low <= 0:
        return None
    n, estimates = total.n, sample.estimates
    lengths = estimates.square().sum(-1)
    products = estimates @ mean
    if total.mean > 0:
        products = (n * products - lengths) / (n - 1)
    cosines = products / lengths.sqrt().clamp_min(1e-300) / norm.value
    if total.mean > 0 and estimates.shape[1] == 1:
        return _sign(cosines)
    unit = (estimates / lengths.sqrt().clamp_min(1e-300).unsqueeze(-1)).mean(0)
    # d(uᵀg/‖g‖) = wᵀ dg
    w = unit / norm.value - float(unit @ mean) * mean / norm.value**3
    each = mean_moments(cosines.cpu().numpy())
    error = math.hypot(each.stderr, math.sqrt(max(sample.variance_along(w), 0.0) / n))
    skewness = each.skewness * (each.stderr / error) ** 3 if error > 0 else 0.0
    low, high = hall_interval(each.mean, error, skewness, 0.95, each.dof)
    return Interval(*(min(max(end, -1.0), 1.0) for end in (each.mean, low, high)))


def _sign(cosines: Float64[Tensor, " N"]) -> Interval:
    """Of one coordinate a cosine is 1 or −1, and how often it is 1 has Clopper and Pearson's interval."""
    right, of = int((cosines > 0).sum()), len(cosines)
    ends = binomtest(right, of).proportion_ci(0.95)
    return Interval(*(2 * share - 1 for share in (right / of, float(ends.low), float(ends.high))))
