"""Whether contenders agree: the mean gradient with the reference, the total variance with the suite's.

Family-wise a run raises a false alarm with probability `FAMILY_LEVEL`, Bonferroni over its tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FAMILY_LEVEL = 0.01
_Z = float(stats.norm.ppf(0.975))
_UNSURE = 0.02  # a standard error unsure by 7%
_ROUNDING = 1e-5  # of the largest coordinate: what float32 sums may differ by

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """A contender's total variance, and the deviation of its mean gradient from the reference.

    Attributes:
        total: tr Cov(ĝ).
        log_stderr: standard error of its logarithm.
        deviation: (2, P + K), of each half of the replicates; coordinates of φ, then the shared directions.
        stderr: of the deviations, the reference's own error left out.
        skewness: of the deviations, γ/√n.
        unsure: relative variance of the squared standard errors, (kurtosis − 1)/n.
        replicates: behind them.
    """

    total: float
    log_stderr: float
    deviation: Vector
    stderr: Vector
    skewness: Vector
    unsure: Vector
    replicates: int

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the total variance, symmetric on the log scale."""
        width = math.exp(_Z * self.log_stderr)
        return self.total / width, self.total * width


def of_loop(summary: dict[str, Any], contributions: Vector) -> Moments:
    """From a worker's sums; contributions are ‖ĝ_r − reference‖², one a replicate."""
    n, sizes = summary["n"], np.array(summary["sizes"])[:, None]
    mean = float(contributions.mean())
    spread, third = np.sqrt(summary["variance"]), np.array(summary["third"])
    fourth = np.array(summary["fourth"])
    cubed = spread**3 * np.sqrt(sizes)
    return Moments(
        total=(mean - summary["squared_drift"]) * n / (n - 1),
        log_stderr=float(contributions.std(ddof=1)) / math.sqrt(n) / mean,
        deviation=np.array(summary["deviation"]),
        stderr=spread / np.sqrt(sizes - 1),
        skewness=np.divide(third, cubed, out=np.zeros_like(third), where=cubed > 0),
        unsure=(np.divide(fourth, spread**4, out=np.ones_like(third), where=spread > 0) - 1) / sizes,
        replicates=n,
    )


def of_suite(halves: list[dict[str, Any]]) -> Moments:
    """From two results of the suite's own, with replicates enough for H to be t."""
    deviation = np.array([half["deviation"] for half in halves])
    stderrs = [math.log(half["high"] / half["low"]) / 2 / _Z for half in halves]
    return Moments(
        total=sum(half["total"] for half in halves) / 2,
        log_stderr=math.hypot(*stderrs) / 2,
        deviation=deviation,
        stderr=np.array([half["stderr"] for half in halves]),
        skewness=np.zeros_like(deviation),
        unsure=np.zeros_like(deviation),
        replicates=sum(half["replicates"] for half in halves),
    )


def mean_p_value(moments: Moments, reference_stderr: Vector, scale: float, directions: int) -> float:
    """p-value of "the mean gradient is the reference": half the level on coordinates, half on directions.

    Of the coordinates each half of the replicates picks the one that deviates most, and the other half
    tests that one, in that direction: the largest of thousands would need the far tail of t. A coordinate
    that rare draws make has a standard error that is itself unsure, and gets no verdict while it is. The K
    directions are tested by all replicates. Columns are judged by Hall's transform of t (as in
    `elbograd.estimators.testing.mean_test`); one that never varies must be equal up to rounding.

    Args:
        moments: of the contender.
        reference_stderr: of the reference, by column; small against the contender's own.
        scale: the largest coordinate of the reference.
        directions: K, the last columns.
    """
    floor = _ROUNDING * scale
    coordinates = _transformed(
        moments.deviation[:, :-directions],
        moments.stderr[:, :-directions],
        moments.skewness[:, :-directions],
        np.hypot(reference_stderr[:-directions], floor),
    )
    coordinates = np.where(moments.unsure[:, :-directions].max(0) <= _UNSURE, coordinates, 0.0)
    split = 1.0
    for picking, testing in (coordinates, coordinates[::-1]):
        pick = int(np.abs(picking).argmax())
        split = min(split, 2 * float(stats.norm.sf(testing[pick] * np.sign(picking[pick]))))
    # Halves of equal size: their mean has half the root of the summed squares, and cumulants likewise.
    cubes = (moments.skewness * moments.stderr**3)[:, -directions:].sum(0)
    stderr = np.hypot(*moments.stderr[:, -directions:])
    whole = _transformed(
        moments.deviation[:, -directions:].mean(0),
        stderr / 2,
        np.divide(cubes, stderr**3, out=np.zeros_like(cubes), where=stderr > 0),
        np.hypot(reference_stderr[-directions:], floor),
    )
    along = directions * float((2 * stats.norm.sf(np.abs(whole))).min())
    return min(1.0, 2 * split, 2 * along)


def _transformed(deviation: Vector, stderr: Vector, skewness: Vector, extra: Vector) -> Vector:
    """Hall's H = t + g t²/3 + g² t³/27 + g/6, ``extra`` being normal error besides."""
    total = np.hypot(stderr, extra)
    t = deviation / total
    g = skewness * (stderr / total) ** 3
    return t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6


def variance_ratio(moments: Moments, suite: Moments) -> tuple[float, float, float, float]:
    """(ratio to the suite's, low, high, p-value of "the same") by the delta method on the log."""
    log_ratio = math.log(moments.total / suite.total)
    stderr = math.hypot(moments.log_stderr, suite.log_stderr)
    half = _Z * stderr
    return (
        math.exp(log_ratio),
        math.exp(log_ratio - half),
        math.exp(log_ratio + half),
        2 * float(stats.norm.sf(abs(log_ratio) / stderr)),
    )
