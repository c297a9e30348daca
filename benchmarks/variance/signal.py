"""The true gradient against the noise about it: norm, signal-to-noise ratio, cosine of one estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from ..linalg import trace_of_square
from ..statistics.moments import Moments
from ..statistics.signal_to_noise import signal_to_noise

_Z = 1.959964


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
    """

    estimates: Float64[Tensor, "N phi"]
    variance_along: Callable[[Float64[Tensor, " phi"]], float]
    covariance_along: Callable[[Float64[Tensor, " phi"]], float]


def measure_signal(mean: Float64[Tensor, " phi"], sample: Sample, total: Moments) -> Signal:
    """Norm, signal-to-noise ratio and cosine, each with an interval by the delta method.

    ‖ḡ‖² of the mean ḡ of n replicates exceeds ‖g‖² by tr Cov(ĝ)/n, which is taken off; without that
    pure noise would show a signal-to-noise ratio of 1/√n.

    Args:
        mean: ḡ.
        sample: of the same replicates.
        total: tr Cov(ĝ).
    """
    n, squared = total.n, float(mean.square().sum())
    of_square = float(trace_of_square(sample.estimates - mean))
    along = max(sample.variance_along(mean) - of_square / n, 0.0)
    error = math.sqrt(4 * along / n + 2 * of_square / n**2)
    signal = squared - total.mean / n
    shared = 2 * sample.covariance_along(mean) / n - 2 * of_square / n**2
    norm = _root(signal, error)
    return Signal(norm, _snr(signal, error, shared, total), _cosine(mean, sample, norm, total))


def _snr(signal: float, error: float, shared: float, total: Moments) -> Interval:
    """Of ‖g‖² with its error, and of the variance; ``shared`` is the covariance of the two estimates.

    For a skew ĝ they are far from independent: what moves the mean is what makes the variance. Both are
    U-statistics, so their covariance is known: 2 gᵀCov(ĝ, u)/n − 2 tr C²/(n(n − 1)), u = ‖ĝ − g‖².
    """
    value = signal_to_noise(signal + total.mean / total.n, total.mean, total.n)
    if not total.mean > 0:
        return Interval(value, value, value)
    ratio = signal / total.mean
    most = error * total.stderr  # Cauchy-Schwarz, which estimates from different replicates need not keep
    shared = min(max(shared, -most), most)
    squared = error**2 - 2 * ratio * shared + (ratio * total.stderr) ** 2
    return _root(ratio, math.sqrt(max(squared, 0.0)) / total.mean)


def _root(squared: float, error: float) -> Interval:
    return Interval(*(math.sqrt(max(squared + z * error, 0.0)) for z in (0, -_Z, _Z)))


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
    value = float(cosines.mean())
    unit = (estimates / lengths.sqrt().clamp_min(1e-300).unsqueeze(-1)).mean(0)
    # d(uᵀg/‖g‖) = wᵀ dg
    w = unit / norm.value - float(unit @ mean) * mean / norm.value**3
    error = math.sqrt(float(cosines.var()) / len(cosines) + max(sample.variance_along(w), 0.0) / n)
    return Interval(*(min(max(value + z * error, -1.0), 1.0) for z in (0, -_Z, _Z)))
