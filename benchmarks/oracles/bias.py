"""How far the mean of what was measured is from a reference: an estimate, its interval, a bound, a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from scipy import stats
from torch import Tensor

from ...estimators.kl_weight import is_elbo
from ..problems.protocol import Problem
from ..rows.schema import row
from ..statistics.bias import SquaredNorm, bias_bound
from ..statistics.intervals import sum_interval
from ..variance.result import VarianceResult
from .differences import Direction, difference_from, size_of
from .references import Reference, WholeReference, compared_objective, raised

#: A single look at a mean alarms at this level; what is said of it counts ten times as many (`two_looks`).
SCREEN_LEVEL = 1e-3
_SCREENED = 10 * SCREEN_LEVEL
_CONFIRM_LEVEL = 1e-2
_MOST_FRESH = 4  # times the replicates of the first look
_LEAST_FRESH = 1000
_SKEWED, _TOO_SKEWED = 0.2, 1.0  # skewness of the estimated variance, which is that of a square
_STRICTER = 1000  # times, where gradients are skewed

#: Draws so many replicates afresh, under another seed.
Again = Callable[[int], VarianceResult]
AnyReference = Reference | WholeReference


@dataclass(frozen=True)
class Bias:
    """How far an estimate's mean is from the reference.

    Attributes:
        relative: ‖E ĝ − ∇φ‖ / ‖∇φ‖, debiased: 0 where noise explains all that was measured.
        low: lower end of its 95% interval, the reference's own error included.
        high: upper end; infinite where the reference cannot be told from zero.
        bound: upper bound of the relative bias at 99% confidence.
        reference: the reference's kind.
        p_value: of no bias at all, by this one look: of ‖E ĝ − ∇φ‖² and of the projection on ∇φ, beyond
            what rounding explains (1e-4 of the gradient in float32, 1e-5 in float64); see `two_looks`.
        squared: ‖E ĝ − ∇φ‖², in the units of a variance.
    """

    relative: float
    low: float
    high: float
    bound: float
    reference: str
    p_value: float
    squared: SquaredNorm


def bias_rows(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    result: VarianceResult,
    reference: AnyReference | str,
    unbiased: bool | None = None,
    again: Again | None = None,
    fresh: Callable[[], AnyReference | str] | None = None,
) -> list[dict[str, Any]]:
    """The rows on the bias of what was measured.

    Where no bias of an ELBO's gradient is known, a row without a value says why. Other objectives have
    references only where these are exact, and no row where not.

    Args:
        problem: what was measured.
        x: (B, ...), likewise.
        result: of it.
        reference: see `measure_bias`.
        unbiased: what the estimator claims of the reference's objective; None for no row about it.
        again: draws afresh, for `two_looks`, where it claims so; None for no row with a p-value.
        fresh: the reference of a second look.
    """
    common = {**result.case, "n": result.replicates}
    claims = [] if unbiased is None else [row(**common, metric="unbiased", value=float(unbiased))]
    bias = measure_bias(problem, x, result, reference)
    if isinstance(bias, Bias) and not isinstance(reference, str):
        against = json.dumps({"reference": bias.reference})
        ends = {"ci_low": bias.low, "ci_high": bias.high}
        rows = [
            row(**common, metric="bias", value=bias.relative, parameters=against, **ends),
            row(**common, metric="bias_bound", value=bias.bound, parameters=against),
        ]
        if unbiased is False:
            rows += _error_rows(common, against, result, bias.squared)
        elif again is not None:
            p_value, why = two_looks(problem, x, result, reference, bias, again, fresh or (lambda: reference))
            rows.append(row(**common, metric="bias_p_value", value=p_value, reason=why))
        return rows + claims
    if not is_elbo(compared_objective(str(result.case["objective"]))):
        return claims
    return [row(**common, metric="bias", reason=f"no bias known: {bias}"), *claims]


def _error_rows(
    common: dict[str, Any], against: str, result: VarianceResult, squared: SquaredNorm
) -> list[dict[str, Any]]:
    """The bias in the units of the variance, and their sum."""
    bias = (squared.value, *squared.interval())
    error = sum_interval((result.total, result.ci_low, result.ci_high), bias)
    return [
        row(**common, metric=metric, value=value, ci_low=low, ci_high=high, parameters=against)
        for metric, (value, low, high) in (("squared_bias", bias), ("mean_squared_error", error))
    ]


def measure_bias(
    problem: Problem, x: Shaped[Tensor, "B ..."], result: VarianceResult, reference: AnyReference | str
) -> Bias | str:
    """The relative bias of a measured mean gradient, bounded; or why it is not known, in one line.

    It never raises: a bias that cannot be had must not cost the measurement that it is of.

    Args:
        problem: what was measured.
        x: (B, ...), likewise.
        result: of it.
        reference: at the same point and of the same objective, or why there is none; a `WholeReference` for a
            result of the full route.
    """
    if isinstance(reference, str):
        return reference
    try:
        return _bias(problem, x, result, reference)
    except Exception as error:  # a user's problem may raise anything
        return raised(error)


def _bias(problem: Problem, x: Tensor, result: VarianceResult, reference: AnyReference) -> Bias | str:
    if result.eta_mean is None and isinstance(reference, Reference):
        return "the full route keeps no gradients in η-space"
    found = difference_from(problem, x, result, reference)
    size = size_of(problem, x, reference)
    scale = max(size.value, 1e-300)
    extra = found.rounding**2
    squared = SquaredNorm(found.squared_norm, found.trace + extra, found.largest + extra)
    low, high = (end**0.5 for end in squared.interval())
    return Bias(
        max(found.squared_norm - found.trace, 0.0) ** 0.5 / scale,
        low / max(size.high, 1e-300),
        high / size.low if size.low > 0 else (float("inf") if high > 0 else 0.0),
        bias_bound(found.squared_norm, found.trace, found.largest) / scale,
        reference.kind,
        min(1.0, 2 * min(found.p_of_norm(), found.p_along_gradient())),
        squared,
    )


def two_looks(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    first: VarianceResult,
    reference: AnyReference,
    bias: Bias,
    again: Again,
    fresh: Callable[[], AnyReference | str],
) -> tuple[float, str]:
    """A p-value that is honest far in the tail, and why it is 1 where an alarm was not confirmed.

    Tails of the mean of a skewed gradient are heavier than any normal theory has them. So an alarm at 1e-3
    convicts nobody: a second look, at fresh replicates and a fresh reference, must find the mean off in the
    same direction, one-sidedly at p₂ ≤ 1e-2. The product counts the alarm ten times its level, p = 1e-2 p₂,
    which leaves the first look room for ten times the false alarms that it should have. Without an alarm p is
    ten times the first look's. Where the second look's replicates are skewed, p₂ counts a thousandfold, and
    where they are very skewed there is no verdict.

    Args:
        problem: what was measured.
        x: (B, ...), likewise.
        first: look.
        reference: of it.
        bias: by it.
        again: draws so many replicates afresh.
        fresh: another reference, independent of the first unless exact.
    """
    if bias.p_value > SCREEN_LEVEL:
        return min(1.0, 10 * bias.p_value), ""
    try:
        found = difference_from(problem, x, first, reference)
        needed = first.moments[""].needed or 0
        draws = max(first.replicates, min(needed, _MOST_FRESH * first.replicates), _LEAST_FRESH)
        second, other = again(draws), fresh()
        if isinstance(other, str):
            return 1.0, f"bias not confirmed: {other}"
        skewness = 0.0 if second.deterministic else abs(second.moments[""].skewness)
        if skewness > _TOO_SKEWED:
            return 1.0, "bias not confirmed: not enough replicates"
        p_value = _confirmation(problem, x, second, other, found.direction())
        p_value *= _STRICTER if skewness > _SKEWED else 1
    except Exception as error:  # a user's problem may raise anything
        return 1.0, f"bias not confirmed: {raised(error)}"
    if p_value > _CONFIRM_LEVEL:
        return 1.0, ""
    return _SCREENED * p_value, ""


def _confirmation(
    problem: Problem, x: Tensor, second: VarianceResult, reference: AnyReference, direction: Direction
) -> float:
    """One-sided, of the mean of fresh replicates along what the first look found."""
    found = difference_from(problem, x, second, reference)
    along, variance = found.along(direction)
    if not variance > 0:
        return float(not along > 0)
    return float(stats.t.sf(along / variance**0.5, max(second.replicates - 1, 1)))
