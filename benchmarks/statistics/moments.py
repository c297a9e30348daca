"""Moments of an estimated variance: what its interval is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...estimators.errors import EstimatorError
from .intervals import hall_interval
from .replicates import MAX_SKEWNESS, MIN_REPLICATES, fewest_replicates, needed_replicates

_MIN_DOF = 2.0
_MANY_COORDINATES = 16

Array = NDArray[np.float64]


class NotFiniteError(EstimatorError):
    """Contributions to a variance, or what their interval needs, overflow a dtype or are no numbers."""

    def __init__(self, dtype: str = "float64") -> None:
        wider = "" if dtype == "float64" else "measure in float64, or "
        super().__init__(
            f"the gradient is too large (or not finite): the moments of its square overflow {dtype}; "
            f"{wider}scale the objective down"
        )


@dataclass(frozen=True)
class Moments:
    """An estimated mean of non-negative contributions, with what its interval needs.

    Attributes:
        mean: the estimate.
        stderr: its standard error.
        skewness: skewness of the *estimate*, γ/√n for n iid contributions of skewness γ.
        n: replicates.
        dof: effective degrees of freedom of stderr², 2 E(stderr²)²/Var(stderr²); see `summarize_data`.
    """

    mean: float
    stderr: float
    skewness: float
    n: int
    dof: float = math.inf

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Hall's skewness-corrected interval with Student's quantiles, clipped at 0."""
        low, high = hall_interval(self.mean, self.stderr, self.skewness, confidence, self.dof)
        return max(low, 0.0), max(high, 0.0)

    @property
    def needed(self) -> int | None:
        """Replicates that would be enough, or None when these are."""
        if self.stderr == 0 and self.n >= MIN_REPLICATES:
            return None
        if abs(self.skewness) > MAX_SKEWNESS:
            return needed_replicates(self.skewness, self.n)
        return fewest_replicates(self.n)


def summarize_data(
    value: ArrayLike,
    spread: ArrayLike,
    third: ArrayLike,
    fourth: ArrayLike,
    square_trace: ArrayLike,
    n: int,
) -> Moments:
    """Add up the variances V_i of independent data, each estimated from the same n replicates.

    With h a replicate of one datum's gradient, C its covariance and K the quadratic form in which it
    is measured, a contribution is u = (h − h̄)ᵀ K (h − h̄) and V = tr KC = n/(n − 1) mean(u). V̂ is a
    U-statistic, like the sample variance. Its variance is κ₄/n + 2τ/(n − 1), with τ = tr (KC)² and κ₄
    the fourth cumulant E(hᵀKh)² − V² − 2τ of the centred h; both are estimated without bias (from n = 4
    on). Taking Var(u)/n instead is 20% too little at n = 20.

    stderr² can come out anywhere near 0 when ‖h − m‖ is all but constant, so it is kept above
    2τ/(n(n − 1)), which is what is left for a constant; of this less is enough with many coordinates,
    where V̂ can only be off to one side (see `_floor_share`).

    The degrees of freedom are Satterthwaite's: 2(Σ s_i²)²/Σ Var(s_i²), Var(s²) = κ₄(u)/n + 2 s⁴/(n − 1).

    Args:
        value: (B,), V̂_i, unbiased.
        spread: (B,), s_i², variance (n − 1) of u about the data's own mean h̄.
        third: (B,), mean of (u − ū)³.
        fourth: (B,), mean of (u − ū)⁴.
        square_trace: (B,), tr (K Ĉ)².
        n: replicates.

    Raises:
        EstimatorError: the sums are NaN or infinite.

    References:
        Hoeffding, A Class of Statistics with Asymptotically Normal Distribution, 1948, section 5.
        Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946.
    """
    v, s2, m3, m4, tau = (
        np.asarray(a, dtype=np.float64) for a in (value, spread, third, fourth, square_trace)
    )
    s2, total = np.maximum(s2, 0.0), float(v.sum())
    least = 2 * float(tau.sum()) / (n * max(n - 1, 1)) * _floor_share(total, float(tau.sum()))
    with np.errstate(over="ignore", invalid="ignore"):  # told below
        squared = max(float(squared_error(v, s2, tau, n).sum()), least)
    # A NaN is not greater than 0 either, and would pass for a variance known for certain.
    if not all(bool(np.isfinite(a).all()) for a in (v, s2, m3, m4, tau, least, squared)):
        raise NotFiniteError()
    if not squared > 0:
        return Moments(total, 0.0, 0.0, n)
    skewness = _third_cumulant(m3, n) / n**2 / squared**1.5 if n > 2 else 0.0
    return Moments(total, math.sqrt(squared), skewness, n, degrees_of_freedom(s2, m4, n))


def squared_error(v: Array, s2: Array, tau: Array, n: int) -> Array:
    """Var(V̂) of each datum, estimated without bias; arguments as those of `summarize_data`.

    For n < 4, where that cannot be had, the most that it is for Gaussian h.
    """
    if n < 4:
        return 2 * v**2 / (n + 1)
    m = n - 1
    fourth_cumulant = (n * (n + 1) * s2 + 2 * m * v**2 - 2 * m**2 * tau) / ((n - 2) * (n - 3))
    # E τ̂ = τ + κ₄/n + (V² + τ)/m and E V̂² = V² + κ₄/n + 2τ/m, solved for τ.
    excess = fourth_cumulant / n
    unbiased_tau = (tau - excess - (v**2 - excess) / m) * m**2 / ((m + 2) * (m - 1))
    return np.asarray(excess + 2 * unbiased_tau / m)


def _floor_share(total: float, square_trace: float) -> float:
    """Share of 2τ/(n(n − 1)) below which stderr² is not let fall.

    For constant ‖h − m‖, n(V − V̂)/V is about χ²_ν/ν − 1, ν = V²/τ. Its upper tail comes with a larger
    stderr and is covered; the 5% that may be missed are all in its lower tail. With few coordinates this
    would leave too little to contributions that vary slightly.
    """
    nu = total**2 / square_trace if square_trace > 0 else 0.0
    if nu < _MANY_COORDINATES:
        return 1.0
    lower = 1 - float(stats.chi2.ppf(0.05, nu)) / nu
    return (lower * math.sqrt(nu / 2) / float(stats.norm.ppf(0.975))) ** 2


def _third_cumulant(m3: Array, n: int) -> float:
    """Σ κ₃(u_i), for u about the true mean.

    n²/((n − 1)(n − 2)) is for ū. (n/(n − 1))⁶ is for h̄: of one large h a share 1/n is lost in it, and u
    is quadratic in h.
    """
    return float(m3.sum()) * n**2 / ((n - 1) * (n - 2)) * (n / (n - 1)) ** 6


def degrees_of_freedom(s2: Array, m4: Array, n: int) -> float:
    """Satterthwaite's of Σ s_i², from the variances and fourth central moments of n draws of each datum."""
    m = max(n - 1, 1)
    cumulant = np.maximum(m4 - 3 * s2**2, -2 * s2**2 * m / n)
    noise = float((cumulant / n + 2 * s2**2 / m).sum())
    return max(2 * float(s2.sum()) ** 2 / noise, _MIN_DOF) if noise > 0 else max(float(m), _MIN_DOF)


def mean_moments(contributions: ArrayLike) -> Moments:
    """Moments of the mean of independent contributions (n,), n at least 2."""
    u = np.asarray(contributions, dtype=np.float64)
    n, rest = len(u), u - u.mean()
    s2 = float((rest**2).sum()) / (n - 1)
    if not s2 > 0 or n < 3:
        return Moments(float(u.mean()), math.sqrt(s2 / n), 0.0, n, float(max(n - 1, _MIN_DOF)))
    third = float((rest**3).mean()) * n**2 / ((n - 1) * (n - 2))
    dof = degrees_of_freedom(np.array([s2]), np.array([(rest**4).mean()]), n)
    return Moments(float(u.mean()), math.sqrt(s2 / n), third / s2**1.5 / math.sqrt(n), n, dof)
