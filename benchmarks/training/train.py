"""Training with an estimator, and the objective along the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from ...estimators.base import Estimator
from ..problems.arguments import (
    check_called,
    check_choice,
    check_positive,
    checked_seed,
    counts,
    optional_counts,
)
from ..problems.as_trained import as_trained
from ..problems.protocol import Problem
from .begin import Begun, begin, finish
from .result import Checkpoint, TrainResult
from .run import OPTIMIZERS

__all__ = ["OPTIMIZERS", "Checkpoint", "TrainResult", "train"]


@as_trained()
def train(
    problem: Problem | str,
    estimator: Estimator | str,
    *,
    steps: int = 2000,
    num_samples: int = 1,
    batch_size: int | None = None,
    optimizer: str = "adam",
    learning_rate: float = 3e-3,
    evaluate_every: int | None = None,
    importance_samples: int = 256,
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a copy of a problem with an estimator; φ from ``surrogate``, θ from ``value``.

    Evaluation (on at most 512 data of each split, with its own fixed draws) is not counted in the
    seconds. A run whose objective is no longer finite stops and says so.

    Args:
        problem: a Problem, or its specification; left unchanged.
        estimator: an Estimator, or its specification; left unchanged.
        steps: of the optimizer.
        num_samples: S.
        batch_size: B; None for the problem's default.
        optimizer: "adam" or "sgd", for φ and θ; the estimator's own parameters always use Adam at 1e-2.
        learning_rate: of φ and θ.
        evaluate_every: steps; None for 20 evaluations.
        importance_samples: of the held-out log-likelihood at the end; 0 to leave it out.
        seed: of data order and draws.
        device: where to train; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        on_step: called with the number of steps done, for progress.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    steps, num_samples, importance_samples = counts(
        steps=steps, num_samples=num_samples, importance_samples=importance_samples
    )
    (evaluate_every,) = optional_counts(evaluate_every=evaluate_every)
    seed = checked_seed(seed)
    check_choice(OPTIMIZERS, optimizer=optimizer)
    if on_step is not None:
        check_called(on_step=on_step)
    check_positive(learning_rate=learning_rate)
    begun = begin(
        problem,
        estimator,
        num_samples=num_samples,
        batch_size=batch_size,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    begun.run.optimize(optimizer, learning_rate)
    every = evaluate_every or max(1, steps // 20)
    return run_alone(begun, learning_rate, steps, every, importance_samples, on_step)


def run_alone(
    begun: Begun,
    learning_rate: float,
    steps: int,
    every: int,
    importance_samples: int,
    on_step: Callable[[int], None] | None,
) -> TrainResult:
    """Let a run that has its optimizers take its steps.

    Args:
        begun: the run.
        learning_rate: for the result.
        steps: to take.
        every: steps between evaluations.
        importance_samples: of the held-out log-likelihood at the end; 0 to leave it out.
        on_step: called with the number of steps done.
    """
    run = begun.run
    with begun.draws.scope():
        for batch in itertools.islice(begun.batches, steps):
            if not run.step(batch):
                break
            if on_step is not None:
                on_step(run.steps)
            if run.steps % every == 0 or run.steps == steps:
                run.evaluate()
                if run.diverged is not None:
                    break
        return finish(begun, learning_rate, importance_samples)
