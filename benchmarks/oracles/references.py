"""The gradient to hold an estimate against: exact where the problem allows one, else a long gated run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.plugins.registry import create
from ...estimators.text import one_line
from ..jacobians.products import pull_back
from ..jacobians.spectrum import largest_eigenvalue
from ..linalg import in_float64
from ..problems.as_trained import as_trained, eta_of
from ..problems.placement import place, to_encoder
from ..problems.protocol import Problem
from ..seeds import derived
from ..variance.measure import measure_variance
from .objectives import exact_gradients

LONG_RUN = 16_384  # replicates in each half of a long run
LONG_RUNS = (("reparameterization", 1), ("leave-one-out", 8))
_GATE_Z = 5.0


@dataclass(frozen=True)
class Reference:
    """A reference gradient of an objective in η-space.

    Attributes:
        kind: how it was found: "closed-form", "enumeration", "quadrature", "long run of ...".
        eta_mean: ∇_η of each datum's objective, (B, P), float64.
        eta_covariance: covariance of `eta_mean`, (B, P, P); zero when exact.
        trace: tr Cov of the reference's batch-mean φ-gradient; zero when exact.
    """

    kind: str
    eta_mean: Float[Tensor, "B P"]
    eta_covariance: Float[Tensor, "B P P"]
    trace: float


@as_trained()
def reference_gradient(
    problem: Problem, x: Shaped[Tensor, "B ..."], seed: int = 0, objective: str = "elbo", num_samples: int = 1
) -> Reference | str:
    """The best reference for this problem and batch, or why there is none in one line.

    It never raises: a reference that cannot be had must not cost the measurement that it is for.

    Args:
        problem: computed in float64 where exact.
        x: (B, ...).
        seed: of a long run, apart from the seeds of what is held against it.
        objective: "elbo", for which a long run stands in where nothing is exact, or see `exact_objective`.
        num_samples: S, which some objectives depend on.
    """
    exact = exact_reference(problem, x, objective, num_samples)
    if isinstance(exact, Reference) or objective != "elbo":
        return exact
    found = long_run(problem, x, seed)
    return found if isinstance(found, Reference) else f"{exact}; {found}"


@as_trained()
def exact_reference(
    problem: Problem, x: Shaped[Tensor, "B ..."], objective: str = "elbo", num_samples: int = 1
) -> Reference | str:
    """The exact one, computed in float64, or why there is none in one line."""
    try:
        exact = place(problem, dtype=torch.float64)
        x = to_encoder(exact, x)
        eta = eta_of(exact, x)
        with torch.enable_grad():
            answer = exact_gradients(
                exact.posterior, eta, exact.target, x, [], objective, num_samples, climb=True
            )
    except Exception as error:  # a user's problem may raise anything
        return raised(error)
    if isinstance(answer, str):
        return answer
    mean = answer.eta_grad
    return Reference(answer.method, mean, mean.new_zeros(*mean.shape, mean.shape[-1]), 0.0)


@as_trained()
def long_run(
    problem: Problem, x: Shaped[Tensor, "B ..."], seed: int, runs: Sequence[tuple[str, int]] = LONG_RUNS
) -> Reference | str:
    """The mean of a long run of the first of ``runs`` that can be used; or why none is to be trusted."""
    try:
        q = problem.posterior(eta_of(problem, x))
        for name, num_samples in runs:
            estimator = create(name)
            if estimator.supports(q, problem.target(x), num_samples) is None:
                return _gated(problem, x, estimator, num_samples, seed)
    except Exception as error:  # a user's problem may raise anything
        return raised(error)
    return f"{' and '.join(name for name, _ in runs)} cannot be used"


def raised(error: Exception) -> str:
    """In one line, what a computation ended in."""
    return f"{type(error).__name__}: {one_line(error)}"


def _gated(problem: Problem, x: Tensor, estimator: Estimator, num_samples: int, seed: int) -> Reference | str:
    """Two halves that must agree: ‖difference‖² within 5 standard deviations of what noise explains."""
    halves = [
        measure_variance(problem, estimator, x, num_samples=num_samples, replicates=LONG_RUN, seed=one)
        for one in (derived(seed, "reference", number) for number in range(2))
    ]
    means = [half.eta_mean for half in halves]
    covariances = [half.eta_covariance for half in halves]
    run = f"long run of {estimator.label} ({2 * LONG_RUN} estimates)"
    if any(m is None for m in means):
        return "gradients in η-space are not the whole gradient"
    if any(half.moments[""].needed for half in halves):
        return f"a {run} is too short"
    difference = pull_back(problem.encoder, x, (means[0] - means[1]) / len(x))  # type: ignore[operator]
    covariance = (covariances[0] + covariances[1]) / LONG_RUN  # type: ignore[operator]
    trace = (halves[0].total + halves[1].total) / LONG_RUN
    largest = largest_eigenvalue(problem, x, covariance)
    if norm(difference) ** 2 > trace + _GATE_Z * (2 * largest * trace) ** 0.5:
        return f"the halves of a {run} differ"
    mean = (means[0] + means[1]) / 2  # type: ignore[operator]
    return Reference(run, mean, covariance / 4, trace / 4)


def norm(gradient: dict[str, Tensor]) -> float:
    """Of a gradient by parameter."""
    return sum(float(in_float64(g).square().sum()) for g in gradient.values()) ** 0.5
