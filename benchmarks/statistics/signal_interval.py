"""Intervals for the norm of a gradient and its signal-to-noise ratio. Plain numbers in, plain numbers out.

The estimate of ‖g‖² from the mean ḡ of n replicates is T = ‖ḡ‖² − V̂/n, of which, with C = Cov(ĝ),

    Var T = 4 gᵀCg/n + 2 tr C²/n²,

so its error depends on the norm. Taken at the estimated norm it is far too small where that came out small,
which near detection covers 84%. The ends are therefore the norms that a test rejects whose error is taken at
the norm *tested*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, special

from .intervals import student_quantile
from .moments import Moments

_FURTHEST = 1e9  # an end so many times the scale of the noise is as good as none
_SHRINK = 4.0  # squared z score of detection at which half of the noise is taken off the direction's variance


@dataclass(frozen=True)
class Evidence:
    """What n replicates of ĝ show of ‖g‖, w the direction of their mean.

    Attributes:
        squared: ‖ḡ‖².
        total: V̂, of tr Cov(ĝ).
        square_trace: of tr C².
        along: wᵀCw.
        along_dof: effective degrees of freedom of its estimate.
        shared: wᵀCov(ĝ, u), u = ‖ĝ − g‖².
        skewness: a, b -> skewness of one replicate's a wᵀĝ + b u.
    """

    squared: float
    total: Moments
    square_trace: float
    along: float
    along_dof: float
    shared: float
    skewness: Callable[[float, float], float]

    @property
    def signal(self) -> float:
        """T, the unbiased estimate of ‖g‖²; may be negative."""
        return self.squared - self.total.mean / self.total.n

    def direction_variance(self) -> float:
        """gᵀCg/‖g‖², the larger of two estimates.

        wᵀCw is too low where g lies in a noisier direction than noise itself does. With what noise adds taken
        off, tr C²/n of its numerator and V/n of ‖ḡ‖², it is right on average, but too low just where noise
        happens to be small. And nothing is known of the direction of a gradient that is lost in noise: as far
        as it does not stand out it could lie in the noisiest, whose variance is at most √tr C².
        """
        n, signal, largest = self.total.n, max(self.signal, 0.0), math.sqrt(self.square_trace)
        noise = _SHRINK * 2 * self.square_trace / n**2
        share = signal**2 / (signal**2 + noise) if signal > 0 else 0.0
        left = self.squared - share * self.total.mean / n
        debiased = (self.squared * self.along - share * self.square_trace / n) / left if left > 0 else 0.0
        return max(self.along, share * min(debiased, largest) + (1 - share) * largest)


def norm_interval(of: Evidence, confidence: float = 0.95) -> tuple[float, float]:
    """Of ‖g‖. One-sided, [0, high], where 0 is not excluded; high is never below that of T = 0."""
    signal = max(of.signal, 0.0)
    return _invert(lambda norm: _score(of, signal, norm, 0.0, confidence), of, 1.0)


def ratio_interval(of: Evidence, confidence: float = 0.95) -> tuple[float, float]:
    """Of ‖g‖/√V: the ratios ρ for which T − ρ² V̂ is compatible with 0; infinite where none is excluded.

    The two are far from independent for a skew ĝ (what moves the mean is what makes the variance), and their
    covariance is known: 2 gᵀCov(ĝ, u)/n − 2 tr C²/n².
    """
    root = math.sqrt(of.total.mean)
    return _invert(
        lambda ratio: _score(of, max(of.signal, 0.0), ratio * root, ratio**2, confidence), of, root
    )


def _score(of: Evidence, signal: float, norm: float, rho: float, confidence: float) -> float:
    """Normal score of ``signal`` − ρ V̂ (of ‖ḡ‖² alone: less ‖g‖²) under a norm, over its quantile.

    Two skewnesses come in. That of a quadratic form in noise is known under the hypothesis; its distribution
    is taken for Pearson's type III, which for one coordinate at norm 0 it is. That of the draws makes the
    error depend on the estimate, as in `hall_interval`.
    """
    n, tau, total = of.total.n, of.square_trace, of.total
    along = of.direction_variance()
    linear, quadratic, scale = 4 * norm**2 * along / n, 2 * tau / n**2, (rho * total.stderr) ** 2
    shared = 2 * norm * of.shared / n - quadratic
    most = math.sqrt(linear + quadratic) * total.stderr  # Cauchy-Schwarz; other replicates need not keep it
    shared = min(max(shared, -most), most)
    squared = linear + quadratic + scale - 2 * rho * shared
    distance = signal - (rho * total.mean if rho else norm**2)
    if not squared > 1e-14 * (linear + quadratic + scale):
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    error = math.sqrt(squared)
    form = 8 * tau**2 / max(total.mean, 1e-300) / n**3 + 24 * norm**2 * along**2 / n**2
    z = _pearson(distance / error, form / error**3)
    if math.isinf(z):
        return z
    # All of the error but what is quadratic in the noise of ḡ, which V̂ and the covariance have too.
    drawn = max(squared - quadratic * (1 + rho) ** 2, 0.0)
    g = of.skewness(2 * norm, -rho) / math.sqrt(n) * (drawn / squared) ** 1.5
    z = z + g * z**2 / 3 + g**2 * z**3 / 27 + g / 6
    return z / student_quantile(confidence, _dof(of, linear, quadratic, scale))


def _dof(of: Evidence, linear: float, quadratic: float, scale: float) -> float:
    """Satterthwaite's, of the estimated error."""
    total = of.total
    of_trace = (total.mean / total.stderr) ** 2 if total.stderr > 0 else math.inf
    parts = (linear, of.along_dof), (quadratic, of_trace), (scale, total.dof)
    noise = sum(part**2 / dof for part, dof in parts)
    return max((linear + quadratic + scale) ** 2 / noise, 2.0) if noise > 0 else math.inf


def _pearson(z: float, skewness: float) -> float:
    """The normal score of z under Pearson's type III distribution, of mean 0 and variance 1."""
    if skewness < 1e-3:
        return z
    shape = 4 / skewness**2
    x = shape + z * math.sqrt(shape)
    if x <= 0:
        return -math.inf
    upper = float(special.gammaincc(shape, x))
    if upper > 0.5:
        return float(special.ndtri(special.gammainc(shape, x)))
    return -float(special.ndtri(upper)) if upper > 0 else math.inf


def _invert(score: Callable[[float], float], of: Evidence, unit: float) -> tuple[float, float]:
    """Where the score leaves ±1 on both sides of the estimate; in units of the norm over ``unit``."""
    value = math.sqrt(max(of.signal, 0.0)) / unit
    # Where hardly anything is noise, and a step would be lost in the digits of the value, by its last digits.
    step = max(math.sqrt(of.total.mean / of.total.n) / unit, 4 * math.ulp(value))
    low = 0.0 if score(0.0) <= 1 else _crossing(lambda at: score(at) - 1, 0.0, value)
    inner, outer = value, value + step
    while score(outer) > -1:
        inner, outer = outer, value + 2 * (outer - value)
        if outer > value + _FURTHEST * step:
            return low, math.inf
    return low, _crossing(lambda at: score(at) + 1, inner, outer)


def _crossing(excess: Callable[[float], float], a: float, b: float) -> float:
    """The root between a, where the excess is positive, and b; b where it is positive there too."""
    if excess(b) >= 0:
        return b
    if excess(a) <= 0:
        return a

    def finite(at: float) -> float:
        return min(max(excess(at), -1e6), 1e6)

    return float(optimize.brentq(finite, a, b, xtol=1e-12 * max(b, 1e-300), rtol=1e-10))
