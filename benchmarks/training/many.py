"""Training many runs at once: seeds and learning rates side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import seeded
from ..problems.arguments import (
    check_called,
    check_choice,
    check_positive,
    checked_seed,
    counts,
    optional_counts,
    shown,
)
from ..problems.as_trained import as_trained
from ..problems.protocol import Problem
from .begin import Begun, Planned, batches_of_all, begin_all, finish
from .pilot import STEPS, NotStacked, stack_of
from .result import TrainResult
from .run import OPTIMIZERS
from .stack import Stack, stacked_batches
from .tensors import RunTensors
from .train import run_alone

_T = TypeVar("_T")


@as_trained()
def train_many(
    problem: Problem | str,
    estimator: Estimator | str,
    *,
    seeds: Iterable[int],
    learning_rates: Iterable[float] = (3e-3,),
    steps: int = 2000,
    num_samples: int = 1,
    batch_size: int | None = None,
    optimizer: str = "adam",
    evaluate_every: int | None = None,
    importance_samples: int = 256,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[TrainResult]:
    """Train one run for every learning rate and seed, all at once: a run is one more batch dimension.

    Each is the run of `train` with that seed and that learning rate: the same initial weights, order of the
    data and draws, and so the same numbers up to rounding, whichever others run beside it. A run that
    diverges stops, as there; the others go on. A step of all costs much less than a step of each where the
    model is small, and as much where it is large; memory is that of all runs together.

    Before, two steps of all at once are held to the same two steps of each run alone. Where the model or the
    estimator cannot be stacked (it asks for a tensor's values, say, or keeps its state in plain attributes),
    the runs are trained one at a time, which the notes of their results tell with the reason.

    Args:
        problem: a Problem, or its specification, as for `train`; left unchanged.
        estimator: an Estimator, or its specification; left unchanged.
        seeds: of initial weights, where the specification's code draws them, data order and draws.
        learning_rates: of φ and θ.
        steps: of the optimizer, in each run.
        num_samples: S.
        batch_size: B; None for the problem's default.
        optimizer: "adam" or "sgd", for φ and θ; the estimator's own parameters always use Adam at 1e-2.
        evaluate_every: steps; None for 20 evaluations.
        importance_samples: of the held-out log-likelihood at the end; 0 to leave it out.
        device: where to train; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        on_step: called with the number of steps done, by all runs at once or, one at a time, by each.

    Returns:
        A result of each run, as of `train`: the seeds of the first learning rate, then those of the next.
        Seconds are a run's equal share of the time that all take.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    seeds, learning_rates = _checked_seeds(seeds), _checked_rates(learning_rates)
    steps, num_samples, importance_samples = counts(
        steps=steps, num_samples=num_samples, importance_samples=importance_samples
    )
    (evaluate_every,) = optional_counts(evaluate_every=evaluate_every)
    check_choice(OPTIMIZERS, optimizer=optimizer)
    if on_step is not None:
        check_called(on_step=on_step)
    return train_planned(
        [Planned(problem, seed, rate) for rate in learning_rates for seed in seeds],
        estimator,
        steps=steps,
        optimizer=optimizer,
        evaluate_every=evaluate_every,
        importance_samples=importance_samples,
        on_step=on_step,
        num_samples=num_samples,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )


@as_trained()
def train_planned(
    planned: Sequence[Planned],
    estimator: Estimator | str,
    *,
    steps: int,
    optimizer: str,
    evaluate_every: int | None,
    importance_samples: int,
    on_step: Callable[[int], None] | None,
    **settings: Any,
) -> list[TrainResult]:
    """Train these runs, all at once where they can be: see `train_many`.

    Args:
        planned: the runs; those of one seed are of one problem, and equal learning rates stand together.
        estimator: and the other arguments, as for `train_many`.
        steps: of the optimizer, in each run.
        optimizer: of φ and θ.
        evaluate_every: steps; None for 20 evaluations.
        importance_samples: of the held-out log-likelihood at the end.
        on_step: called with the number of steps done.
        settings: the other arguments of `begin`.

    Raises:
        UsageError: as `train_many`.
        EstimatorError: as `train_many`.
    """
    every = evaluate_every or max(1, steps // 20)
    notes: tuple[str, ...] = ()
    if len(planned) > 1:
        begun = begin_all(planned, estimator, optimizer, settings)
        rates = [one.learning_rate for one in planned]
        try:
            _train_stacked(begun, rates, optimizer, steps, every, on_step)
            return [
                _finished(each, rate, importance_samples) for each, rate in zip(begun, rates, strict=True)
            ]
        except NotStacked as reason:
            notes = (f"trained one run at a time: {reason}",)
    results = []
    for one in planned:
        (alone,) = begin_all([one], estimator, optimizer, settings)
        result = run_alone(alone, one.learning_rate, steps, every, importance_samples, on_step)
        results.append(replace(result, notes=notes))
    return results


def _train_stacked(
    begun: Sequence[Begun],
    rates: Sequence[float],
    optimizer: str,
    steps: int,
    every: int,
    on_step: Callable[[int], None] | None,
) -> None:
    """Let all runs take their steps, evaluated as `train` does.

    Raises:
        NotStacked: they have to be trained one at a time, from the beginning.
    """
    with seeded(begun[0].run.seed, begun[0].first.device):
        batches = batches_of_all(begun)
        tried = list(itertools.islice(batches, STEPS))
        stack = stack_of(begun, rates, optimizer, tried)
        race = _Race(begun, stack)
        for done, batch in enumerate(itertools.islice(itertools.chain(tried, batches), steps), 1):
            race.step(batch)
            if on_step is not None:
                on_step(done)
            if done % every == 0 or done == steps:
                race.evaluate(done)
                if not race.going:
                    break


class _Race:
    """Runs on their way.

    Attributes:
        going: those that take steps, by number; their rows in the stack are in this order.
    """

    def __init__(self, begun: Sequence[Begun], stack: Stack) -> None:
        self.going = list(range(len(begun)))
        self._begun, self._stack, self._seconds = begun, stack, 0.0
        self._tensors = [RunTensors(each.run.problem, each.run.estimator) for each in begun]

    def step(self, batch: Sequence[Tensor]) -> None:
        """Take one step, timed, on a batch of every run."""
        before = time.perf_counter()
        try:
            self._stack.step(stacked_batches([batch[number] for number in self.going]))
        except Exception as error:  # of one run; alone it tells which
            raise NotStacked(error) from error
        self._seconds += time.perf_counter() - before

    def evaluate(self, done: int) -> None:
        """Put down each run's objective after so many steps; those that have diverged stop."""
        device = self._begun[0].first.device
        before = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        share = (self._seconds + time.perf_counter() - before) / len(self.going)
        self._seconds = 0.0
        refused = self._stack.refused_at.tolist()
        rows = [
            row
            for row, number in enumerate(self.going)
            if self._goes_on(number, row, done, refused[row], share)
        ]
        if rows and len(rows) < len(self.going):
            self._stack.keep(rows)
        self.going = [self.going[row] for row in rows]

    def _goes_on(self, number: int, row: int, done: int, refused: int, share: float) -> bool:
        begun = self._begun[number]
        self._stack.write(row, self._tensors[number])
        begun.run.took(refused - 1 if refused else done, share)
        if refused:
            begun.run.refuse()
        else:
            with begun.draws.scope():
                begun.run.evaluate()
        return begun.run.diverged is None


def _finished(begun: Begun, learning_rate: float, importance_samples: int) -> TrainResult:
    with begun.draws.scope():
        return finish(begun, learning_rate, importance_samples)


def _checked_seeds(seeds: object) -> list[int]:
    found = [checked_seed(seed) for seed in _listed("seeds", "integers", "range(8)", seeds)]
    if not found:
        raise UsageError("no seed is given")
    return _distinct("seed", found)


def _checked_rates(rates: object) -> list[float]:
    found = []
    for rate in _listed("learning_rates", "positive numbers", "[1e-3, 3e-3]", rates):
        check_positive(learning_rate=rate)
        found.append(float(rate))
    if not found:
        raise UsageError("no learning rate is given")
    return _distinct("learning rate", found)


def _listed(name: str, what: str, example: str, given: object) -> list[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"{name} must be {what}, such as {example}, not {shown(given)}")
    return list(given)


def _distinct(what: str, values: list[_T]) -> list[_T]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UsageError(f"{what} {value!r} is given twice")
    return values
