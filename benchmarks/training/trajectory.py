"""The training trajectory that all estimators share: walked once, every asked-for step kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ...estimators.support import refusal
from ..gradients import seeded
from ..problems.as_trained import as_trained
from ..problems.buffers import kept_buffers
from ..problems.forward_checks import checked_eta, posterior_and_target
from ..problems.placement import batches_of
from ..problems.point import placed
from ..problems.protocol import Problem
from .batches import endless
from .held_out import evaluate_elbo
from .state import State, sides, state_of
from .step import TrainingStep, out_of_domain

_LEARNING_RATE = 3e-3
_TEACHERS = (("reparameterization", 1), ("leave-one-out", 4))
_EVALUATIONS = 20
_HELDOUT_DATA = 512


@dataclass(frozen=True)
class Trajectory:
    """Points of one training run.

    Attributes:
        states: step -> state dicts of "encoder" and "decoder".
        heldout: step -> held-out objective in nats a datum, at these steps and others in between; empty
            where the problem has no held-out data.
    """

    states: dict[int, State]
    heldout: dict[int, float]


@as_trained()
def walk(
    problem: Problem, steps: Collection[int], seed: int, beside: Callable[[Problem, int], None] | None = None
) -> Trajectory:
    """Train a problem in place with the first teacher that supports it, and keep the states at ``steps``.

    The teacher is reparameterization, or leave-one-out with S = 4 where the posterior has no rsample;
    Adam at 3e-3, the problem's default batch size. The state at a step does not depend on which others are
    kept.

    Args:
        problem: at its initialization.
        steps: of training; 0 is the initialization.
        seed: of data order and draws.
        beside: called with the problem and the number of steps done before each step, and after the last;
            it may draw. No objective is evaluated then.

    Raises:
        UsageError: no teacher supports the problem, or the objective is no longer finite.
    """
    last = max(steps)
    evaluated = set() if beside else {*steps, *range(0, last + 1, max(1, last // _EVALUATIONS))}
    problem, x = placed(problem, seed=seed)
    trajectory = Trajectory({}, {})
    with seeded(seed, x.device):
        teacher, num_samples = _teacher(problem, x)
        model = [p for side in sides(problem).values() for p in side.parameters() if p.requires_grad]
        step = TrainingStep(problem, teacher, [torch.optim.Adam(model, lr=_LEARNING_RATE)], num_samples)
        batches = endless(problem, len(x), seed)
        for done in range(last + 1):
            with _divergence_told(done):
                if done in evaluated:
                    _evaluate(problem, done, seed, trajectory.heldout)
                if done in steps:
                    trajectory.states[done] = state_of(problem)
                if beside is not None:
                    beside(problem, done)
                if done < last:
                    step(next(batches))
    return trajectory


def heldout_objective(problem: Problem, seed: int) -> float | None:
    """Held-out objective, nats a datum, on at most 512 data; None where there are none.

    Under one seed two points of a trajectory share their data and, where q draws alike, their noise.
    """
    x = next(batches_of(problem, "test", _HELDOUT_DATA), None)
    return None if x is None else evaluate_elbo(problem, x[:_HELDOUT_DATA], seed)


def _evaluate(problem: Problem, step: int, seed: int, heldout: dict[int, float]) -> None:
    value = heldout_objective(problem, seed)
    if value is None:
        return
    if not math.isfinite(value):
        raise _diverged(step)
    heldout[step] = value


@contextmanager
def _divergence_told(step: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if out_of_domain(error):
            raise _diverged(step + 1) from error
        raise


def _diverged(step: int) -> UsageError:
    return UsageError(f"the training of the checkpoints diverged before step {step}")


def _teacher(problem: Problem, x: Tensor) -> tuple[Estimator, int]:
    with kept_buffers(problem.encoder):  # which only steps are to move
        q, target = posterior_and_target(problem, x, checked_eta(problem, x))
    for name, num_samples in _TEACHERS:
        teacher = create(name)
        if refusal(teacher, q, target, num_samples) is None:
            teacher.init(q, target)
            return teacher.train(), num_samples
    raise UsageError("no estimator to train a checkpoint with")
