"""Intervals for what is measured. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats


def hall_interval(
    mean: float, stderr: float, skewness: float, confidence: float, dof: float = math.inf
) -> tuple[float, float]:
    """Invert Hall's monotone cubic transformation of the t statistic.

    The ends are mean − stderr·(3/g)[(1 + g(±q − g/6))^{1/3} − 1], g the skewness of the estimate;
    as g → 0 they tend to mean ∓ q·stderr. q is the quantile of Student's t with ``dof`` degrees of
    freedom: with those of `summarize_data`, which heavy tails lower, coverage is 94–96% where the
    normal quantile gives 91–94%.

    References:
        Hall, On the Removal of Skewness by Transformation, JRSS B, 1992, eq. 2.
    """
    if stderr == 0:
        return mean, mean
    q = student_quantile(confidence, dof)
    ends = [mean - stderr * _inverse_transform(sign * q, skewness) for sign in (1, -1)]
    return ends[0], ends[1]


def student_quantile(confidence: float, dof: float) -> float:
    """Two-sided quantile of Student's t; infinite ``dof`` gives the normal one."""
    level = 0.5 + confidence / 2
    return float(special.ndtri(level) if math.isinf(dof) else special.stdtrit(dof, level))


def _inverse_transform(z: float, g: float) -> float:
    if abs(g) < 1e-5:
        return z
    return 3 / g * (math.cbrt(1 + g * (z - g / 6)) - 1)


def product_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(value, low, high) of the product of two independent positive quantities given likewise.

    Half-widths add in quadrature on the log scale; an end at 0 is one of the product too.
    """
    value = first[0] * second[0]
    low, high = (
        math.exp(sign * math.hypot(*(_log_ratio(q[end], q[0]) for q in (first, second)))) * value
        for sign, end in ((-1, 1), (1, 2))
    )
    return value, low, high


def sum_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(value, low, high) of the sum of two independent quantities given likewise.

    Distances to the ends add in quadrature, each side for itself.

    References:
        Zou & Donner, Construction of Confidence Limits about Effect Measures, Statistics in Medicine, 2008.
    """
    low, high = (math.hypot(first[end] - first[0], second[end] - second[0]) for end in (1, 2))
    value = first[0] + second[0]
    return value, value - low, value + high


def _log_ratio(end: float, value: float) -> float:
    if not value > 0 or math.isnan(end):
        return 0.0
    return math.log(end / value) if end > 0 else -math.inf


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval from order statistics (binomial, conservative).

    With fewer than six values no order statistics reach 95%: the ends are then the extremes.
    """
    low, high = stats.quantile_test(values).confidence_interval(confidence)  # NaN where none reaches it
    return float(np.median(values)), float(np.fmax(low, min(values))), float(np.fmin(high, max(values)))
