"""The gradient to hold an estimate against: exact where the problem allows one, else a long gated run.

Its size follows from counts, never from the clock, so that a run that is resumed or shared out gives the
same numbers; the clock can only end it, with a reason in place of a reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ...estimators.base import Estimator, Target
from ...estimators.kl_weight import is_elbo, split_objective, weighted_objective
from ...estimators.plugins.registry import create
from ...estimators.posteriors.outcomes import outcomes
from ...estimators.support import refusal
from ...estimators.text import one_line
from ..gradients import frozen
from ..jacobians.products import pull_back, trainable
from ..jacobians.spectrum import largest_eigenvalue
from ..linalg import in_float64
from ..problems.as_trained import as_trained, eta_of
from ..problems.buffers import kept_buffers
from ..problems.module_modes import sides_in_train_mode
from ..problems.placement import place, to_encoder
from ..problems.protocol import Problem
from ..seeds import derived
from ..variance.lanes import lanes
from ..variance.measure import measure_variance
from ..variance.result import VarianceResult
from ..variance.route import by_datum
from .clock import Clock, TookTooLong
from .objectives import exact_gradients, exact_with_method

RELAXED = "relaxed"  #: the objective with relaxed latents in place of discrete ones
LONG_RUN = 16_384  # replicates in each half of a long run, at most
_SHORT_RUN = 512  # at least, and of whole gradients at most
_FEW, _LOOK_SECONDS = 8, 2.0  # of a pilot
_TIMES = 4  # of the replicates that it serves, in each half
LONG_RUNS = (
    ("reparameterization", 1),
    ("reparameterization[kl=sampled]", 1),
    ("leave-one-out", 8),
    ("leave-one-out[kl=sampled]", 8),
)
_GATE_Z = 5.0
_NOT_WHOLE = "gradients in η-space are not the whole gradient"
_OF_EACH_S = "BatchNorm of the decoder in train mode makes the objective another at each number of samples"
_NOISY = "noise of modules in train mode leaves no exact answer"


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


@dataclass(frozen=True)
class WholeReference:
    """A reference gradient in φ-space, for what is drawn there.

    Attributes:
        kind: how it was found.
        mean: parameter name -> ∇φ of the batch's objective.
        trace: tr Cov of it; zero when exact.
    """

    kind: str
    mean: dict[str, Tensor]
    trace: float


def compared_objective(objective: str) -> str:
    """Whose gradient a mean is held against: of the ELBO of relaxed latents the ELBO's own.

    >>> compared_objective("relaxed"), compared_objective("iwae")
    ('elbo', 'iwae')
    >>> compared_objective("relaxed[temperature=0.5,kl_weight=4]")
    'elbo[kl_weight=4]'
    """
    whole, weight = split_objective(objective)
    return weighted_objective("elbo", weight) if whole.partition("[")[0] == RELAXED else objective


def length_for(replicates: int) -> int:
    """Replicates in each half of a long run that serves measurements of so many.

    Its error is part of the bias' interval, so that more than a few times as many would sharpen nothing.
    """
    return max(_SHORT_RUN, min(LONG_RUN, _TIMES * replicates))


@as_trained()
def reference_gradient(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    seed: int = 0,
    objective: str = "elbo",
    num_samples: int = 1,
    *,
    length: int = LONG_RUN,
    clock: Clock | None = None,
) -> Reference | str:
    """The best reference for this problem and batch, or why there is none in one line.

    It never raises: a reference that cannot be had must not cost the measurement that it is for.

    Args:
        problem: computed in float64 where exact.
        x: (B, ...).
        seed: of a long run, apart from the seeds of what is held against it.
        objective: "elbo", for which a long run stands in where nothing is exact, or see `exact_objective`.
        num_samples: S, which some objectives depend on.
        length: replicates in each half of a long run.
        clock: that ends it; None for no limit.
    """
    clock = clock or Clock()
    exact = exact_reference(problem, x, objective, num_samples, clock)
    if isinstance(exact, Reference) or not is_elbo(objective):
        return exact
    found = long_run(problem, x, seed, length=length, clock=clock)
    return found if isinstance(found, Reference) or found == exact else f"{exact}; {found}"


@as_trained()
def whole_reference(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    seed: int = 0,
    objective: str = "elbo",
    num_samples: int = 1,
    *,
    length: int = LONG_RUN,
    clock: Clock | None = None,
) -> WholeReference | str:
    """The same in φ-space, by η-space where that is all of the gradient, else by drawing whole gradients.

    Where dropout is in train mode, the gradients are drawn whole; where only BatchNorm of the encoder is,
    unless there is an exact one.
    """
    clock = clock or Clock()
    try:
        coupled, drawn = sides_in_train_mode(problem)
        if "decoder" in coupled:
            return _OF_EACH_S
        if drawn and not is_elbo(objective):
            return _NOISY
        with kept_buffers(problem.encoder), kept_buffers(problem.decoder):
            if drawn:
                return _whole_run(problem, x, seed, length, clock)
            if not only_through_eta(problem, x):
                exact = _exact_whole(problem, x, objective, num_samples, clock)
                if isinstance(exact, WholeReference) or not is_elbo(objective):
                    return exact
            elif not coupled and by_datum(problem, eta_of(problem, x)):
                found = reference_gradient(
                    problem, x, seed, objective, num_samples, length=length, clock=clock
                )
                return found if isinstance(found, str) else _pulled_back(problem, x, found)
            else:
                found = exact_reference(problem, x, objective, num_samples, clock)
                if isinstance(found, Reference):
                    return _pulled_back(problem, x, found)
                if not is_elbo(objective):
                    return found
            return _whole_run(problem, x, seed, length, clock)
    except Exception as error:  # a user's problem may raise anything
        return raised(error)


@as_trained()
def whole_of(problem: Problem, x: Shaped[Tensor, "B ..."], reference: Reference) -> WholeReference | str:
    """A reference in φ-space, where η is all that φ enters through; else why not."""
    try:
        with kept_buffers(problem.encoder), kept_buffers(problem.decoder):
            return _pulled_back(problem, x, reference) if only_through_eta(problem, x) else _NOT_WHOLE
    except Exception as error:  # a user's problem may raise anything
        return raised(error)


def _pulled_back(problem: Problem, x: Tensor, reference: Reference) -> WholeReference:
    return WholeReference(
        reference.kind, pull_back(problem.encoder, x, reference.eta_mean / len(x)), reference.trace
    )


def expected_seconds(
    problem: Problem, x: Shaped[Tensor, "B ..."], objective: str, num_samples: int, length: int
) -> float | None:
    """About how long `reference_gradient` takes here, from a look at it; None where that cannot be told."""
    began = time.monotonic()
    exact = exact_reference(problem, x, objective, num_samples, Clock(_LOOK_SECONDS))
    spent = time.monotonic() - began
    if isinstance(exact, Reference):
        return spent
    found = _first_of(problem, x, LONG_RUNS)
    if not is_elbo(objective) or isinstance(found, str):
        return None
    estimator, samples = found
    took = []
    for replicates in (_FEW, _FEW, _SHORT_RUN):  # the first warms up
        began = time.monotonic()
        measure_variance(problem, estimator, x, num_samples=samples, replicates=replicates, details=False)
        took.append(time.monotonic() - began)
    each = max(took[2] - took[1], 0.0) / (_SHORT_RUN - _FEW)
    return spent + 2 * (took[1] + each * length)


def only_through_eta(problem: Problem, x: Shaped[Tensor, "B ..."]) -> bool:
    """Whether the encoder gives the same eta twice, and φ enters posterior and target through it alone."""
    with torch.enable_grad():
        eta = problem.encoder(x)
        if not torch.equal(eta, problem.encoder(x)):
            return False
    return not direct_parameters(problem, x, eta)


def direct_parameters(problem: Problem, x: Shaped[Tensor, "B ..."], eta: Float[Tensor, "B P"]) -> list[str]:
    """Names of the encoder's parameters that posterior or target reach other than through eta."""
    phi = trainable(problem.encoder)
    with torch.enable_grad():
        leaf = eta.detach().requires_grad_()
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            q, target = problem.posterior(leaf), problem.target(x)
            z = q.sample(torch.Size((1,)))
            parts = [q.log_prob(z), target.log_likelihood(z)]
            if target.prior is not None:
                parts.append(target.prior.log_prob(z))
        total = torch.stack([part.sum() for part in parts]).sum()
        grads = torch.autograd.grad(total, list(phi.values()), allow_unused=True)
    return [name for name, g in zip(phi, grads, strict=True) if g is not None]


@as_trained()
def exact_reference(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    objective: str = "elbo",
    num_samples: int = 1,
    clock: Clock | None = None,
) -> Reference | str:
    """The exact one, computed in float64, or why there is none in one line."""
    clock = clock or Clock()
    try:
        exact = place(problem, dtype=torch.float64)
        x = to_encoder(exact, x)
        with (
            torch.enable_grad(),
            frozen(exact.decoder),
            kept_buffers(exact.encoder),
            kept_buffers(exact.decoder),
        ):
            eta = eta_of(exact, x)
            target = _timed(exact.target, clock, _evaluations(exact, x, objective))
            answer = exact_gradients(
                exact.posterior, eta, target, x, [], objective, num_samples, climb=True, tell=clock.check
            )
    except Exception as error:  # a user's problem may raise anything
        return raised(error)
    if isinstance(answer, str):
        return answer
    mean = answer.eta_grad
    none = mean.new_zeros(()).expand(*mean.shape, mean.shape[-1])  # takes no memory
    return Reference(answer.method, mean, none, 0.0)


def _exact_whole(
    problem: Problem, x: Tensor, objective: str, num_samples: int, clock: Clock
) -> WholeReference | str:
    """The exact one of a posterior that holds φ itself, or why there is none in one line."""
    exact = place(problem, dtype=torch.float64)
    x = to_encoder(exact, x)
    with torch.enable_grad(), frozen(exact.decoder):
        eta = exact.encoder(x)
        if not torch.equal(eta, exact.encoder(x)):
            return _NOT_WHOLE
        target = _timed(exact.target, clock, _evaluations(exact, x, objective))(x)
        found = exact_with_method(exact.posterior(eta), target, objective, num_samples)
        if isinstance(found, str):
            return found
        value, method = found
        phi = trainable(exact.encoder)
        parts = torch.autograd.grad(value.mean(), list(phi.values()), materialize_grads=True)
    return WholeReference(method, dict(zip(phi, parts, strict=True)), 0.0)


def _evaluations(problem: Problem, x: Tensor, objective: str) -> int | None:
    """Of log p(x|z) in an ELBO by enumeration; None of other answers."""
    count = outcomes(problem.posterior(eta_of(problem, x))) if is_elbo(objective) else None
    return None if count is None else count * len(x)


def _timed(
    target_of: Callable[[Tensor], Target], clock: Clock, evaluations: int | None = None
) -> Callable[[Tensor], Target]:
    """The targets, which look at the clock whenever they are evaluated, so many times in all."""
    done = 0

    def timed(x: Tensor) -> Target:
        target = target_of(x)

        def log_likelihood(z: Tensor) -> Tensor:
            nonlocal done
            f = target.log_likelihood(z)
            done += f.numel()
            clock.check(min(done / evaluations, 1.0) if evaluations else 0.0)
            return f

        clock.check()
        return replace(target, log_likelihood=log_likelihood)

    return timed


@as_trained()
def long_run(
    problem: Problem,
    x: Shaped[Tensor, "B ..."],
    seed: int,
    runs: Sequence[tuple[str, int]] = LONG_RUNS,
    *,
    length: int = LONG_RUN,
    clock: Clock | None = None,
) -> Reference | str:
    """The mean of a long run of the first of ``runs`` that can be used; or why none is to be trusted."""
    clock = clock or Clock()
    try:
        found = _first_of(problem, x, runs)
        if isinstance(found, str):
            return found
        while True:
            halves = _halves(problem, x, *found, seed, length, clock)
            if length >= LONG_RUN or not any(half.moments[""].needed for half in halves):
                return _gated(problem, x, halves, f"long run of {found[0].label} ({2 * length} estimates)")
            length = min(4 * length, LONG_RUN)
    except Exception as error:  # a user's problem may raise anything
        return raised(error)


def _whole_run(problem: Problem, x: Tensor, seed: int, length: int, clock: Clock) -> WholeReference | str:
    """A long run of gradients drawn whole."""
    found = _first_of(problem, x, LONG_RUNS)
    if isinstance(found, str):
        return found
    length = min(length, _SHORT_RUN)
    one, other = _halves(problem, x, *found, seed, length, clock, route="full")
    run = f"long run of {found[0].label} ({2 * length} whole gradients)"
    difference = norm({name: g - other.mean[name] for name, g in one.mean.items()})
    trace = (one.total + other.total) / length
    if difference**2 > trace * (1 + _GATE_Z * 2**0.5):
        return f"the halves of a {run} differ"
    mean = {name: (g + other.mean[name]) / 2 for name, g in one.mean.items()}
    return WholeReference(run, mean, trace / 4)


def _first_of(problem: Problem, x: Tensor, runs: Sequence[tuple[str, int]]) -> tuple[Estimator, int] | str:
    """The first estimator that can be used, with its S."""
    q = problem.posterior(eta_of(problem, x))
    for name, num_samples in runs:
        estimator = create(name)
        if refusal(estimator, q, problem.target(x), num_samples) is None:
            return estimator, num_samples
    return f"{' and '.join(name for name, _ in runs)} cannot be used"


def raised(error: Exception) -> str:
    """In one line, what a computation ended in."""
    return one_line(error) if isinstance(error, TookTooLong) else f"{type(error).__name__}: {one_line(error)}"


def _halves(
    problem: Problem,
    x: Tensor,
    estimator: Estimator,
    num_samples: int,
    seed: int,
    length: int,
    clock: Clock,
    route: str = "factorized",
) -> list[VarianceResult]:
    """The two halves of a long run, independent, watched by the clock."""
    done = 0

    def watch(_estimator: object, given: tuple[Any, ...]) -> None:
        nonlocal done
        clock.check(min(done / (2 * length), 1.0))
        done += lanes() * max(1, given[0].batch_shape.numel() // max(1, len(x)))

    handle = estimator.register_forward_pre_hook(watch)
    try:
        return [
            measure_variance(
                problem, estimator, x,
                num_samples=num_samples, replicates=length, seed=one, route=route, details=False,
            )
            for one in (derived(seed, "reference", number) for number in range(2))
        ]  # fmt: skip
    finally:
        handle.remove()


def _gated(problem: Problem, x: Tensor, halves: list[VarianceResult], run: str) -> Reference | str:
    """Two halves that must agree: ‖difference‖² within 5 standard deviations of what noise explains."""
    length = halves[0].replicates
    means = [half.eta_mean for half in halves]
    covariances = [half.eta_covariance for half in halves]
    if any(m is None for m in means):
        return _NOT_WHOLE
    if any(half.moments[""].needed for half in halves):
        return f"a {run} is too short"
    difference = pull_back(problem.encoder, x, (means[0] - means[1]) / len(x))  # type: ignore[operator]
    covariance = (covariances[0] + covariances[1]) / length  # type: ignore[operator]
    trace = (halves[0].total + halves[1].total) / length
    largest = largest_eigenvalue(problem, x, covariance)
    if norm(difference) ** 2 > trace + _GATE_Z * (2 * largest * trace) ** 0.5:
        return f"the halves of a {run} differ"
    mean = (means[0] + means[1]) / 2  # type: ignore[operator]
    return Reference(run, mean, covariance / 4, trace / 4)


def norm(gradient: dict[str, Tensor]) -> float:
    """Of a gradient by parameter."""
    return sum(float(in_float64(g).square().sum()) for g in gradient.values()) ** 0.5
