"""The gradient to hold an estimate against: exact where the problem allows one, else a long gated run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.methods.exact import Exact
from ...estimators.plugins.registry import create
from ..gradients import eta_gradients
from ..jacobians.products import pull_back
from ..jacobians.spectrum import largest_eigenvalue
from ..linalg import in_float64
from ..problems.placement import place, to_encoder
from ..problems.protocol import Problem
from ..statistics.intervals import bias_bound
from ..variance.measure import measure_variance
from ..variance.result import VarianceResult

_NODES = {1: (128, 200), 2: (64, 96), 3: (24, 32)}  # by dimension; trusted when the two agree
_QUADRATURE_TOLERANCE = 1e-5
LONG_RUN = 16_384  # replicates in each half of a long run
LONG_RUNS = (("reparameterization", 1), ("leave-one-out", 8))
_GATE_Z = 5.0
_ROUNDING = {"float64": 1e-9}  # of a mean gradient, relative; 1e-5 in float32


@dataclass(frozen=True)
class Reference:
    """A reference gradient of the ELBO in η-space.

    Attributes:
        kind: how it was found: "closed-form", "enumeration", "quadrature", "long run of ...".
        eta_mean: ∇_η of each datum's objective, (B, P), float64.
        eta_covariance: covariance of `eta_mean`, (B, P, P); zero when exact.
        trace: tr Cov of the reference's batch-mean φ-gradient; zero when exact.
    """

    kind: str
    eta_mean: Tensor
    eta_covariance: Tensor
    trace: float


@dataclass(frozen=True)
class Bias:
    """How far an estimate's mean is from the reference.

    Attributes:
        relative: ‖E ĝ − ∇φ‖ / ‖∇φ‖, debiased: 0 where noise explains all that was measured.
        bound: upper bound of the relative bias at 99% confidence.
        absolute_bound: the same, not divided.
        reference: the reference's kind.
        p_value: of no bias at all, by a χ² with the mean and no less than the variance of ‖E ĝ − ∇φ‖²;
            beyond what float32 (float64) rounds of the gradient, 1e-5 (1e-9).
    """

    relative: float
    bound: float
    absolute_bound: float
    reference: str
    p_value: float


def reference_gradient(problem: Problem, x: Tensor, seed: int = 0) -> Reference | None:
    """The best reference for this problem and batch; None when none passes its gate.

    Args:
        problem: computed in float64 where exact.
        x: (B, ...).
        seed: of a long run, apart from the seeds of what is held against it.
    """
    return integrated_gradient(problem, x) or long_run(problem, x, seed)


def integrated_gradient(problem: Problem, x: Tensor) -> Reference | None:
    """The exact one, computed in float64, or None."""
    exact = place(problem, dtype=torch.float64)
    x64 = to_encoder(exact, x)
    for method in ("closed-form", "enumeration", "quadrature"):
        mean = _integrate(exact, method, x64)
        if mean is not None:
            return Reference(method, mean, mean.new_zeros(*mean.shape, mean.shape[-1]), 0.0)
    return None


def measure_bias(problem: Problem, x: Tensor, result: VarianceResult, reference: Reference) -> Bias | None:
    """Bound the relative bias of a measured mean gradient; None on the full route, where h is not kept."""
    if result.eta_mean is None or result.eta_covariance is None:
        return None
    batch = len(x)
    difference = pull_back(problem.encoder, x, (result.eta_mean - reference.eta_mean) / batch)
    gradient = _norm(pull_back(problem.encoder, x, reference.eta_mean / batch))
    covariance = result.eta_covariance / result.replicates + reference.eta_covariance
    trace = result.total / result.replicates + reference.trace
    squared_norm = _norm(difference) ** 2
    largest = largest_eigenvalue(problem, x, covariance)
    absolute = bias_bound(squared_norm, trace, largest)
    scale = max(gradient, 1e-300)
    rounding = (_ROUNDING.get(str(result.case["dtype"]), 1e-5) * scale) ** 2
    return Bias(
        max(squared_norm - trace, 0.0) ** 0.5 / scale,
        absolute / scale,
        absolute,
        reference.kind,
        _p_value(squared_norm, trace + rounding, largest + rounding),
    )


def _p_value(squared_norm: float, trace: float, largest: float) -> float:
    """P(‖b̂‖² at least that large | no bias), b̂ of a covariance of this trace and largest eigenvalue."""
    if not trace > 0:
        return float(squared_norm == 0)
    dof = trace / largest if largest > 0 else 1.0  # tr² / (largest × tr), no more than tr² / tr of the square
    return float(stats.chi2.sf(dof * squared_norm / trace, dof))


def _integrate(problem: Problem, method: str, x: Tensor) -> Tensor | None:
    """∇_η by one method of `Exact`, or None where it does not apply or has not converged."""
    with torch.no_grad():
        eta = problem.encoder(x)
    q = problem.posterior(eta)
    if Exact(method).supports(q, problem.target(x), 1):
        return None
    if method != "quadrature":
        return _datum_by_datum(problem, Exact(method), x, eta)
    coarse, fine = (
        _datum_by_datum(problem, Exact(method, nodes), x, eta) for nodes in _NODES[q.event_shape[0]]
    )
    agree = float((fine - coarse).norm()) <= _QUADRATURE_TOLERANCE * float(fine.norm())
    return fine if agree else None


def _datum_by_datum(problem: Problem, estimator: Exact, x: Tensor, eta: Tensor) -> Tensor:
    """One datum at a time: all outcomes or nodes of a whole batch would not fit in memory."""
    parts = [
        eta_gradients(problem, estimator, problem.target(datum), one, 1, 1)[0]
        for datum, one in zip(x.split(1), eta.split(1), strict=True)
    ]
    return in_float64(torch.cat(parts))


def long_run(
    problem: Problem, x: Tensor, seed: int, runs: Sequence[tuple[str, int]] = LONG_RUNS
) -> Reference | None:
    """The mean of a long run of the first of ``runs`` that can be used; None when its gate does not pass."""
    with torch.no_grad():
        q = problem.posterior(problem.encoder(x))
    for name, num_samples in runs:
        estimator = create(name)
        if estimator.supports(q, problem.target(x), num_samples) is None:
            return _gated(problem, x, estimator, num_samples, seed)
    return None


def _gated(
    problem: Problem, x: Tensor, estimator: Estimator, num_samples: int, seed: int
) -> Reference | None:
    """Two halves that must agree: ‖difference‖² within 5 standard deviations of what noise explains."""
    halves = [
        measure_variance(
            problem, estimator, x, num_samples=num_samples, replicates=LONG_RUN, seed=seed + 7919 * k
        )
        for k in (1, 2)
    ]
    means = [half.eta_mean for half in halves]
    covariances = [half.eta_covariance for half in halves]
    if any(m is None for m in means) or any(half.moments[""].needed for half in halves):
        return None
    difference = pull_back(problem.encoder, x, (means[0] - means[1]) / len(x))  # type: ignore[operator]
    covariance = (covariances[0] + covariances[1]) / LONG_RUN  # type: ignore[operator]
    trace = (halves[0].total + halves[1].total) / LONG_RUN
    largest = largest_eigenvalue(problem, x, covariance)
    if _norm(difference) ** 2 > trace + _GATE_Z * (2 * largest * trace) ** 0.5:
        return None
    mean = (means[0] + means[1]) / 2  # type: ignore[operator]
    kind = f"long run of {estimator.label} ({2 * LONG_RUN} estimates)"
    return Reference(kind, mean, covariance / 4, trace / 4)


def _norm(gradient: dict[str, Tensor]) -> float:
    return sum(float(in_float64(g).square().sum()) for g in gradient.values()) ** 0.5
