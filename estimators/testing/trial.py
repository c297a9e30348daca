"""An estimator under test on one family of toy problems: building it, calling it, taking its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor

from ..base import Estimate, Estimator, Target
from ..isolation import isolated
from .mean_test import CONFIRM_LEVEL
from .toy_problems import ElboGradients, Family, ToyProblem

SEED = 20240
_WARM_UP_STEPS = 20
_LEARNING_RATE = 1e-3
_SIZES_TRIED = 8
_MANY_EVALUATIONS = 16
TOLERANCE = 1e-9  # float64 rounding through sums taken in another order


class NotApplicable(SkipTest):
    """A check has nothing to say about this estimator; any other `SkipTest` is a verdict not reached."""


class Outcome(NamedTuple):
    """An estimate and its gradients: eta_grad (*batch, P) of surrogate, theta_grad (*batch, T) of value."""

    estimate: Estimate
    eta_grad: Tensor
    theta_grad: Tensor


@dataclass(frozen=True)
class Trial:
    """One estimator on one family.

    Attributes:
        build: returns a fresh estimator.
        family: the posterior family.
        sizes: the first four numbers of samples S that the estimator supports here, smallest first.
        seed: of every draw.
        confirm_level: at which an alarm of a statistical check must be confirmed (see `find_deviation`).
        drawn: what the properties of the mean have drawn so far, by S and number of draws.
    """

    build: Callable[[], Estimator]
    family: Family
    sizes: tuple[int, ...]
    seed: int = SEED
    confirm_level: float = CONFIRM_LEVEL
    drawn: dict[tuple[int, int], ElboGradients] = field(default_factory=dict)

    def fresh(self, problem: ToyProblem | None = None) -> Estimator:
        """A new estimator in eval mode, shown the problem (by default that of three data) by `init`."""
        problem = problem or self.family.problem()
        estimator = self.build().to(problem.eta.device).eval()
        estimator.init(problem.q, problem.target)
        return estimator

    @cached_property
    def small(self) -> list[tuple[str, ToyProblem, Outcome]]:
        """Estimates with batch (3,), (2, 3), (1,), (2, 1), for each S, with and without θ learned."""
        found = []
        with isolated(self.seed + 4):
            for data in ((0, 1, 2), (0,)):
                estimator = self.fresh(self.family.problem(data=data))
                for lead, num_samples, learned in product(((), (2,)), self.sizes, (False, True)):
                    problem = self.family.problem(lead, data, learned=learned)
                    where = f"batch {tuple(problem.eta.shape[:-1])}, S = {num_samples}"
                    with suppress(NotApplicable):  # a size of the batch may be refused
                        found.append((where, problem, evaluate(estimator, problem, num_samples)))
        return found

    @cached_property
    def warm(self) -> Estimator:
        """An estimator in eval mode after some training steps, so that its state is not the initial one."""
        return self.warm_in(torch.float64)

    def warm_in(self, dtype: torch.dtype, steps: int = _WARM_UP_STEPS) -> Estimator:
        """One of its own, trained in a floating-point type."""
        with isolated(self.seed + 1):
            problem = self.family.problem(dtype=dtype)
            estimator = self.fresh(problem).train()
            for _ in range(steps):
                estimate = evaluate(estimator, problem, self.sizes[0]).estimate
                train_step(estimator, estimate)
        return estimator.eval()

    @contextmanager
    def modes(self, training: bool) -> Iterator[Estimator]:
        """The warm estimator in this mode; it is in eval mode again after."""
        try:
            yield self.warm.train(training)
        finally:
            self.warm.eval()

    @cached_property
    def deterministic(self) -> bool:
        """Whether successive estimates are equal: each then stands for any number of draws."""
        with isolated(self.seed + 2):
            problem = self.family.problem((32,))
            calls = [evaluate(self.warm, problem, self.num_samples) for _ in range(2)]
        return all(torch.equal(call.eta_grad, calls[0].eta_grad) for call in calls)

    @cached_property
    def evaluations(self) -> int:
        """Evaluations of log_likelihood that one estimate of one datum takes."""
        problem = self.family.problem()
        counts: list[int] = []

        def counted(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def call(z: Tensor) -> Tensor:
                counts.append(len(z))
                return f(z)

            return call

        with isolated(self.seed + 3):
            evaluate(self.warm, problem, self.num_samples, with_likelihood(problem.target, counted))
        return sum(counts)

    @property
    def costly(self) -> bool:
        """Whether an estimate evaluates log_likelihood so often that a quarter of the draws must do."""
        return self.evaluations > _MANY_EVALUATIONS

    @property
    def num_samples(self) -> int:
        """S where one will do: the second smallest, so that a slip in averaging over S shows."""
        return self.sizes[min(1, len(self.sizes) - 1)]


def supported_sizes(estimator: Estimator, problem: ToyProblem, target: Target) -> tuple[int, ...] | str:
    """The first four S that the estimator supports, or why it supports none.

    Raises:
        Exception: whatever the estimator's ``supports`` raises.
    """
    smallest = estimator.min_samples if isinstance(estimator.min_samples, int) else 1
    answers = {s: estimator.supports(problem.q, target, s) for s in range(smallest, smallest + _SIZES_TRIED)}
    sizes = tuple(s for s, answer in answers.items() if answer is None)
    return sizes[:4] or str(answers[smallest])


def evaluate(
    estimator: Callable[..., Estimate], problem: ToyProblem, num_samples: int, target: Target | None = None
) -> Outcome:
    """One estimate, with the gradient of surrogate in η and of value in θ, entry by entry.

    A gradient that does not exist is zero.

    Raises:
        AssertionError: forward did not return an `Estimate` of tensors, or one that is not finite.
        NotApplicable: the estimator refuses to be used here, as for a size of the batch.
    """
    if isinstance(estimator, Estimator):
        require_support(estimator, problem, target or problem.target, num_samples)
    estimate = estimator(problem.q, target or problem.target, num_samples)
    assert isinstance(estimate, Estimate), f"forward returned a {type(estimate).__name__}, not an Estimate"
    for name in ("surrogate", "value"):
        kind = type(getattr(estimate, name)).__name__
        assert isinstance(getattr(estimate, name), Tensor), f"{name} is a {kind}, not a tensor"
    (eta_grad,) = gradients(estimate.surrogate, [problem.eta])
    none = problem.eta.detach()[..., :0]
    theta_grad = torch.cat((none, *gradients(estimate.value, problem.learned)), -1)
    parts = {
        "surrogate": estimate.surrogate,
        "value": estimate.value,
        "aux_loss": estimate.aux_loss,
        "surrogate's gradient in η": eta_grad,
        "value's gradient in θ": theta_grad,
    }
    for name, part in parts.items():
        if isinstance(part, Tensor) and not bool(part.isfinite().all()):
            raise AssertionError(f"{name} {_not_finite(part, problem.eta.shape[:-1])}, S = {num_samples}")
    return Outcome(estimate, eta_grad, theta_grad)


def _not_finite(part: Tensor, batch: torch.Size) -> str:
    """What (*batch) or (*batch, ·) is where it is not finite, at which datum and how often."""
    if part.shape[: len(batch)] != batch:
        return f"is {float(part[~part.isfinite()][0])}"
    rows = part.detach().reshape(batch[:-1].numel(), batch[-1], -1)
    bad = ~rows.isfinite().all(-1)
    datum = int(bad.any(0).int().argmax())
    first = rows[:, datum][~rows[:, datum].isfinite()][0]
    return f"is {float(first)} at datum {datum} in {int(bad[:, datum].sum()):,} of {len(bad):,} estimates"


def require_support(estimator: Estimator, problem: ToyProblem, target: Target, num_samples: int) -> None:
    """Skip the check where the estimator does not support the target.

    Raises:
        NotApplicable: with the estimator's reason.
    """
    reason = estimator.supports(problem.q, target, num_samples)
    if reason is not None:
        raise NotApplicable(reason)


def gradients(output: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of output's sum, zeros where there is none; the graph is kept."""
    if not leaves or not output.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(output.sum(), leaves, retain_graph=True, materialize_grads=True)


def train_step(estimator: Estimator, estimate: Estimate) -> None:
    """What a training loop does with an estimator after an estimate: a step on aux_loss, then `update`."""
    own = [p for p in estimator.parameters() if p.requires_grad]
    if estimate.aux_loss is not None and own:
        steps = torch.autograd.grad(estimate.aux_loss.mean(), own, retain_graph=True, materialize_grads=True)
        with torch.no_grad():
            for parameter, step in zip(own, steps, strict=True):
                parameter.sub_(step, alpha=_LEARNING_RATE)
    estimator.update(estimate)


def seeded(
    estimator: Estimator,
    problem: ToyProblem,
    num_samples: int,
    target: Target | None = None,
    seed: int = SEED,
) -> Outcome:
    """`evaluate` after setting the global seed."""
    torch.manual_seed(seed)
    return evaluate(estimator, problem, num_samples, target)


def with_likelihood(target: Target, wrap: Callable[[Callable[[Tensor], Tensor]], Any]) -> Target:
    """The target with its log_likelihood wrapped."""
    return replace(target, log_likelihood=wrap(target.log_likelihood))


def watched(target: Target) -> tuple[Target, list[Tensor]]:
    """The target, and every z that its log_likelihood is asked for from now on, detached."""
    seen: list[Tensor] = []

    def recorded(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(z: Tensor) -> Tensor:
            seen.append(z.detach())
            return f(z)

        return call

    return with_likelihood(target, recorded), seen


def expect(condition: bool | Tensor, reason: str) -> None:
    """Raise AssertionError with the reason unless the condition holds."""
    if not condition:
        raise AssertionError(reason)


def expect_same(outcomes: Sequence[Outcome], what: str, tolerance: float = TOLERANCE) -> None:
    """Two outcomes agree to ``tolerance``; else "<what> the <part that differs>"."""
    first, second = outcomes
    for name, one, two in outcome_parts(first, second):
        expect(one.shape == two.shape and relative_difference(one, two) <= tolerance, f"{what} the {name}")


def outcome_parts(first: Outcome, second: Outcome) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, part of the first, part of the second) of what counts in an outcome."""
    yield "gradient in η", first.eta_grad, second.eta_grad
    yield "value", first.estimate.value, second.estimate.value
    yield "gradient in θ", first.theta_grad, second.theta_grad


def relative_difference(one: Tensor, two: Tensor) -> float:
    """Largest difference over the largest entry; 0 for empty tensors, infinite where one is not finite."""
    if not one.numel():
        return 0.0
    one, two = one.detach(), two.detach()
    scale = max(float(one.abs().max()), float(two.abs().max()), torch.finfo(one.dtype).tiny)
    difference = float((one - two).abs().max()) / scale
    return difference if difference == difference else float("inf")
