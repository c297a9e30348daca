"""How far the mean of what was measured is from a reference: a bound, never a bare p-value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from scipy import stats
from torch import Tensor

from ..jacobians.products import pull_back
from ..jacobians.spectrum import largest_eigenvalue
from ..problems.protocol import Problem
from ..rows.schema import row
from ..statistics.bias import bias_bound
from ..variance.result import VarianceResult
from .references import Reference, norm, raised

_ROUNDING = {"float64": 1e-9}  # of a mean gradient, relative; 1e-5 in float32


@dataclass(frozen=True)
class Bias:
    """How far an estimate's mean is from the reference.

    Attributes:
        relative: ‖E ĝ − ∇φ‖ / ‖∇φ‖, debiased: 0 where noise explains all that was measured.
        bound: upper bound of the relative bias at 99% confidence.
        reference: the reference's kind.
        p_value: of no bias at all, by a χ² with the mean and no less than the variance of ‖E ĝ − ∇φ‖²;
            beyond what float32 (float64) rounds of the gradient, 1e-5 (1e-9).
    """

    relative: float
    bound: float
    reference: str
    p_value: float


def bias_rows(
    problem: Problem, x: Shaped[Tensor, "B ..."], result: VarianceResult, reference: Reference | str
) -> list[dict[str, Any]]:
    """The rows on the bias of what was measured; none on the full route.

    Where no bias of an ELBO's gradient is known, a row without a value says why. Other objectives have
    references only where these are exact, and no row where not.
    """
    common = {**result.case, "n": result.replicates}
    bias = measure_bias(problem, x, result, reference)
    if isinstance(bias, Bias):
        against = json.dumps({"reference": bias.reference})
        named = (("bias", bias.relative), ("bias_bound", bias.bound))
        return [row(**common, metric=metric, value=value, parameters=against) for metric, value in named]
    if result.eta_mean is None or result.case["objective"] != "elbo":
        return []
    return [row(**common, metric="bias", reason=f"no bias known: {bias}")]


def measure_bias(
    problem: Problem, x: Shaped[Tensor, "B ..."], result: VarianceResult, reference: Reference | str
) -> Bias | str:
    """The relative bias of a measured mean gradient, bounded; or why it is not known, in one line.

    It never raises: a bias that cannot be had must not cost the measurement that it is of.

    Args:
        problem: what was measured.
        x: (B, ...), likewise.
        result: on the factorized route; the full one keeps no h.
        reference: at the same point and of the same objective, or why there is none.
    """
    if isinstance(reference, str):
        return reference
    try:
        return _bias(problem, x, result, reference)
    except Exception as error:  # a user's problem may raise anything
        return raised(error)


def _bias(problem: Problem, x: Tensor, result: VarianceResult, reference: Reference) -> Bias | str:
    if result.eta_mean is None or result.eta_covariance is None:
        return "the full route keeps no gradients in η-space"
    batch = len(x)
    difference = pull_back(problem.encoder, x, (result.eta_mean - reference.eta_mean) / batch)
    gradient = norm(pull_back(problem.encoder, x, reference.eta_mean / batch))
    covariance = result.eta_covariance / result.replicates + reference.eta_covariance
    trace = result.total / result.replicates + reference.trace
    squared_norm = norm(difference) ** 2
    largest = largest_eigenvalue(problem, x, covariance)
    scale = max(gradient, 1e-300)
    rounding = (_ROUNDING.get(str(result.case["dtype"]), 1e-5) * scale) ** 2
    return Bias(
        max(squared_norm - trace, 0.0) ** 0.5 / scale,
        bias_bound(squared_norm, trace, largest) / scale,
        reference.kind,
        _p_value(squared_norm, trace + rounding, largest + rounding),
    )


def _p_value(squared_norm: float, trace: float, largest: float) -> float:
    """P(‖b̂‖² at least that large | no bias), b̂ of a covariance of this trace and largest eigenvalue."""
    if not trace > 0:
        return float(squared_norm == 0)
    dof = trace / largest if largest > 0 else 1.0  # tr² / (largest × tr), no more than tr² / tr of the square
    return float(stats.chi2.sf(dof * squared_norm / trace, dof))
