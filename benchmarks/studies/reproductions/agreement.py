"""Measurements held against exact numbers, many at a time, at one level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from scipy.stats import norm
from torch import Tensor

from ...problems.protocol import Problem
from ...statistics.moments import Moments
from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .result import Claim, Curve

FAMILY_LEVEL = 1e-3
_ROUNDING = 1e-9


class Variance(NamedTuple):
    """A measured variance and the exact one; what rounding may change it by."""

    measured: Moments
    exact: float
    rounding: float = 0.0

    def inside(self, confidence: float) -> bool:
        """Whether the exact one lies in the measured one's interval."""
        low, high = self.measured.interval(confidence)
        slack = max(_ROUNDING * self.exact, self.rounding)
        return low - slack <= self.exact <= high + slack


class Mean(NamedTuple):
    """A mean gradient over independent replicates and the exact one, coordinate by coordinate."""

    measured: Tensor
    stderr: Tensor
    exact: Tensor

    @property
    def largest(self) -> float:
        """The largest distance in standard errors; what has none may be off by rounding."""
        difference = (self.measured - self.exact).abs()
        scale = _ROUNDING * self.exact.abs().max()
        return float((difference / self.stderr.clamp_min(float(scale))).max())


def variances_agree(what: str, points: Sequence[Variance]) -> Claim:
    """Every exact variance in the interval of its measurement, at a family-wise level of 1e-3."""
    confidence = 1 - FAMILY_LEVEL / len(points)
    inside = sum(point.inside(confidence) for point in points)
    worst = max(abs(p.measured.mean / p.exact - 1) for p in points if p.exact > p.rounding)
    return Claim(
        f"{len(points)} {what}",
        f"{inside} inside their intervals, largest relative difference {100 * worst:.2g}%",
        f"all, at a family-wise level of {FAMILY_LEVEL:g}",
        inside == len(points),
    )


def means_agree(what: str, points: Sequence[Mean]) -> Claim:
    """Every coordinate of every mean at the exact gradient, at a family-wise level of 1e-3."""
    coordinates = sum(point.exact.numel() for point in points)
    largest = max(point.largest for point in points)
    limit = float(norm.isf(FAMILY_LEVEL / (2 * coordinates)))
    return Claim(
        f"{len(points)} {what}",
        f"at most {largest:.2f} standard errors off, of {coordinates:,} coordinates",
        f"at most {limit:.2f}, a family-wise level of {FAMILY_LEVEL:g}",
        largest <= limit,
    )


def one_variance(what: str, point: Variance) -> Claim:
    """A measured variance with its 95% interval beside the exact one, which may be 0; level 1e-3."""
    low, high = point.measured.interval()
    return Claim(
        what,
        f"{point.measured.mean:.4g} ({low:.4g} to {high:.4g})",
        f"{point.exact:.5g}",
        point.inside(1 - FAMILY_LEVEL),
    )


def one_mean(what: str, point: Mean) -> Claim:
    """A measured mean of one coordinate with its 95% interval beside the exact one; level 1e-3."""
    measured, margin = float(point.measured), 1.96 * float(point.stderr)
    return Claim(
        what,
        f"{measured:.5g} ± {margin:.1g}",
        f"{float(point.exact):.5g}",
        point.largest <= float(norm.isf(FAMILY_LEVEL / 2)),
    )


def total(result: VarianceResult, share: float = 1.0) -> Moments:
    """The measured tr Cov(ĝ) times a number, such as one over the number of coordinates."""
    moments = result.moments[""]
    return replace(moments, mean=share * moments.mean, stderr=share * moments.stderr)


def measure(
    problem: Problem | str, estimator: str, replicates: int, seed: int, num_samples: int = 1
) -> VarianceResult:
    """Mean and variance of the gradient in float64, of an estimator as it is made: nothing is tuned."""
    return measure_variance(
        problem,
        estimator,
        num_samples=num_samples,
        replicates=replicates,
        warmup=0,
        seed=seed,
        dtype="float64",
    )


def cost_gradient(result: VarianceResult, exact: Tensor | float) -> Mean:
    """The measured mean gradient of a cost, which is minus the objective, beside the exact one.

    Of several coordinates, which are then η of one datum too, the projection on the exact gradient is added:
    what is wrong everywhere by a little shows there.

    Args:
        result: of a `DiscreteCost`.
        exact: in φ, a number for all coordinates or one of each.
    """
    measured = -torch.cat([g.flatten().double() for g in result.mean.values()])
    variance = torch.cat([v.flatten().double() for v in result.per_parameter.values()])
    expected = torch.as_tensor(exact, dtype=torch.float64).expand_as(measured)
    if len(measured) > 1 and expected.any():
        assert result.eta_covariance is not None
        along = expected / expected.norm()
        measured = torch.cat((measured, (along @ measured)[None]))
        variance = torch.cat((variance, (along @ result.eta_covariance[0] @ along)[None]))
        expected = torch.cat((expected, expected.norm()[None]))
    return Mean(measured, (variance.clamp_min(0.0) / result.replicates).sqrt(), expected)


def points(label: str, x: Sequence[float], measured: Sequence[Moments], scale: Sequence[float] = ()) -> Curve:
    """Measured variances with 95% intervals, each divided by its scale."""
    scale = scale or [1.0] * len(x)
    ends = [m.interval() for m in measured]
    return Curve(
        label,
        list(x),
        [m.mean / s for m, s in zip(measured, scale, strict=True)],
        [low / s for (low, _), s in zip(ends, scale, strict=True)],
        [high / s for (_, high), s in zip(ends, scale, strict=True)],
    )


def mean_points(label: str, x: Sequence[float], measured: Sequence[Mean]) -> Curve:
    """Measured means of one coordinate with 95% intervals."""
    values = [float(m.measured) for m in measured]
    margins = [1.96 * float(m.stderr) for m in measured]
    return Curve(
        label,
        list(x),
        values,
        [v - m for v, m in zip(values, margins, strict=True)],
        [v + m for v, m in zip(values, margins, strict=True)],
    )
