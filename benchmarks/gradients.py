"""Asking an estimator for gradients in η-space, and holding it to its contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ParamSpec

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..estimators.base import Estimate, Estimator, Target
from ..estimators.errors import EstimatorError, UsageError
from ..estimators.isolation import drawing_from
from ..estimators.posteriors.shared import shares_draws
from ..estimators.support import refusal
from .problems.as_trained import eta_of
from .problems.datum_index import target_of
from .problems.differentiable import detachment
from .problems.forward_checks import checked_eta, posterior_and_target
from .problems.fresh_batches import FreshBatches, fresh_batches
from .problems.posterior_checks import distrust
from .problems.protocol import Problem
from .seeds import hashed

_A = ParamSpec("_A")
_WARMUP_STEPS = 500
STATE_LEARNING_RATE = 1e-2  #: of Adam for the estimators' own parameters, in training and before measurements


@dataclass(frozen=True)
class StateTraining:
    """What the estimator's own state was trained on before it was measured.

    Attributes:
        updates: calls of `Estimator.update`, an optimizer step before each.
        note: what has to be known of them, in a few words; "" where there is nothing.
    """

    updates: int
    note: str = ""


def prepare(
    problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, warmup: int | None
) -> StateTraining:
    """Check that the estimator can be used here, let it allocate its state, and train that.

    The state is trained as in training, at the current φ and θ: on shuffled batches of training data, none of
    which is measured. Call it inside `seeded`.

    Args:
        problem: left unchanged.
        estimator: gets its state; ends in eval mode.
        x: (B, ...), what will be measured.
        num_samples: S.
        warmup: updates; None for 500 where there is state to train, else 0.

    Raises:
        UsageError: the estimator does not support the posterior, the target or S.
        EstimatorError: it breaks the protocol while its state is trained.
    """
    with torch.enable_grad():  # without, some encoders compute otherwise
        eta = checked_eta(problem, x).detach()
    make_ready(problem, estimator, x, eta, num_samples)
    if warmup is None:
        warmup = _WARMUP_STEPS if has_moving_state(estimator) else 0
    trained = warm_up(problem, estimator, x, num_samples, warmup)
    estimator.eval()
    return trained


def make_ready(
    problem: Problem, estimator: Estimator, x: Tensor, eta: Tensor, num_samples: int
) -> tuple[Distribution, Target]:
    """Show the estimator the problem at eta (B, P), whereupon it allocates its state; returns q and target.

    Raises:
        UsageError: the estimator does not support the posterior, the target or S; or the problem fails.
    """
    q, target = posterior_and_target(problem, x, eta)
    reason = (
        refusal(estimator, q, target, num_samples)
        or _no_sum(q, estimator)
        or distrust(problem.posterior, eta, target, estimator)
        or detachment(q, target, estimator)
    )
    if reason:
        raise UsageError(f"{estimator.label} cannot be used here: {reason}")
    estimator.init(q, target)
    estimator.to(device=eta.device, dtype=eta.dtype)
    return q, target


def _no_sum(q: Distribution, estimator: Estimator) -> str | None:
    """Why a batch whose data share their draws does not estimate the objective of all data, or None."""
    if not shares_draws(q) or estimator.objective == "elbo":
        return None
    return (
        f"its objective {estimator.objective} is no sum over data that share their draws, so that a "
        "minibatch does not estimate it: choose an estimator of the ELBO"
    )


def has_moving_state(estimator: Estimator) -> bool:
    """Whether `update` or an optimizer changes what the estimator does."""
    updated = estimator.updates and type(estimator).update is not Estimator.update
    return updated or any(True for _ in estimator.parameters())


def warm_up(problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, steps: int) -> StateTraining:
    """Train the estimator's state for some steps at the current φ and θ, on data other than x (B, ...).

    Raises:
        EstimatorError: an estimate breaks the protocol.
    """
    if steps == 0:
        return StateTraining(0)
    generator = torch.Generator().manual_seed(hashed(torch.initial_seed(), "fresh batches"))
    fresh = fresh_batches(problem, x, generator, without=not estimator.per_datum)
    batches: Iterator[Tensor] = itertools.repeat(x) if fresh is None else fresh
    step = StateStep(problem, estimator, num_samples)
    for batch in itertools.islice(batches, steps):
        step(batch)
    return StateTraining(steps, _note(estimator, fresh))


def note_on_data(problem: Problem, estimator: Estimator, x: Tensor) -> str:
    """What is to be told of the data that state measured on x (B, ...) was trained on along a trajectory."""
    fresh = fresh_batches(problem, x, torch.Generator().manual_seed(0), without=not estimator.per_datum)
    if fresh is not None:
        next(fresh)  # which finds out how many there are
    return _note(estimator, fresh)


def _note(estimator: Estimator, fresh: FreshBatches | None) -> str:
    if fresh is None:
        return "state fitted on the measured data, there are no others"
    if estimator.per_datum:
        return "state of each datum trained on the measured data too"
    return f"state trained on {fresh.few} other data, there are no more" if fresh.few else ""


class StateStep:
    """The part of a training step that moves the estimator's own state, φ and θ left as they are.

    As in `training.step.TrainingStep`: a forward pass in train mode, Adam on what ``aux_loss`` reaches,
    `Estimator.update`.

    Args:
        problem: its parameters require no gradient meanwhile.
        estimator: already shown the problem by `Estimator.init`.
        num_samples: S.
    """

    def __init__(self, problem: Problem, estimator: Estimator, num_samples: int) -> None:
        self.problem, self.estimator, self.num_samples = problem, estimator, num_samples
        estimator.train()
        self.own = [p for p in estimator.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(self.own, lr=STATE_LEARNING_RATE) if self.own else None

    def __call__(self, x: Tensor) -> None:
        """One step on a batch x (B, ...)."""
        self.at(eta_of(self.problem, x), target_of(self.problem, x))

    def at(self, eta: Tensor, target: Target) -> None:
        """One step at eta (B, P)."""
        leaf = eta.detach().requires_grad_()
        with torch.enable_grad(), frozen(self.problem.decoder):
            estimate = self.estimator(self.problem.posterior(leaf), target, self.num_samples)
            check_estimate(estimate, eta.shape[:-1])
            if self._optimizer is not None and estimate.aux_loss is not None:
                self._optimizer.zero_grad()
                estimate.aux_loss.mean().backward(inputs=self.own)
                self._optimizer.step()
        self.estimator.update(estimate)


def eta_gradients(
    problem: Problem, estimator: Estimator, target: Target, eta: Tensor, replicates: int, num_samples: int
) -> Tensor:
    """Independent estimates h of every datum's gradient in η-space, (R, B, P), in one call.

    Raises:
        EstimatorError: the estimate breaks the protocol.
    """
    leaf = eta.detach().expand(replicates, *eta.shape).clone().requires_grad_()
    estimate = estimator(problem.posterior(leaf), target, num_samples)
    check_estimate(estimate, leaf.shape[:-1])
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]


def check_estimate(estimate: Estimate, batch_shape: torch.Size) -> None:
    """Hold an estimate to the protocol.

    Raises:
        EstimatorError: not an Estimate, a wrong shape, or a surrogate without a gradient.
    """
    if not isinstance(estimate, Estimate):
        raise EstimatorError(f"forward returned a {type(estimate).__name__}, not an Estimate")
    for name in ("surrogate", "value"):
        tensor = getattr(estimate, name)
        if not isinstance(tensor, Tensor):
            raise EstimatorError(f"{name} is a {type(tensor).__name__}, not a tensor")
        if tensor.shape != batch_shape:
            raise EstimatorError(
                f"{name} has shape {tuple(tensor.shape)}, expected *batch = {tuple(batch_shape)}"
            )
    if not estimate.surrogate.requires_grad:
        raise EstimatorError("surrogate has no gradient: nothing attached to q's parameters is in it")


def count_evaluations(
    problem: Problem, estimator: Estimator, target: Target, eta: Tensor, num_samples: int
) -> int:
    """Evaluations of log p(x|z) a datum in one estimate; 0 where it is integrated in closed form."""
    rows = 0

    def counted(evaluate: Callable[_A, Tensor]) -> Callable[_A, Tensor]:
        def counting(*given: _A.args, **named: _A.kwargs) -> Tensor:
            nonlocal rows
            f = evaluate(*given, **named)
            rows += f.numel()
            return f

        return counting

    looked_at = replace(target, log_likelihood=counted(target.log_likelihood))
    if target.network is not None:
        network = replace(target.network, log_likelihood=counted(target.network.log_likelihood))
        looked_at = replace(looked_at, network=network)
    leaf = eta.detach().requires_grad_()  # of shape (B, P), which every model takes
    check_estimate(estimator(problem.posterior(leaf), looked_at, num_samples), leaf.shape[:-1])
    return round(rows / max(1, len(eta)))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, the module's parameters require no gradient; afterwards all is as before."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from ``seed`` inside, on the CPU and on ``device``; leave the global generators as they were.

    NumPy's and Python's too, which a user's model may draw from.

    Two estimators measured under one seed draw the same numbers wherever they draw alike.
    """
    devices = [device] if device.type == "cuda" else []
    with drawing_from(seed), torch.random.fork_rng(devices=devices):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of ``device`` alone: `torch.manual_seed` takes milliseconds."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
