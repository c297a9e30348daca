"""A training run before its first step and after its last, whoever takes the steps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.isolation import Draws
from ...estimators.support import weighted_elbo
from ..gradients import seeded
from ..problems.checks import check_trainable
from ..problems.copying import deep_copy
from ..problems.forward_checks import check_forward
from ..problems.placement import duplicate
from ..problems.point import columns, label_of, placed, resolve_estimator
from ..problems.protocol import Problem
from .batches import endless
from .held_out import importance_weighted_log_likelihood
from .result import TrainResult
from .run import Run


@dataclass
class Begun:
    """A run that is ready to take steps.

    Attributes:
        run: evaluated at step 0.
        first: batch, x (B, ...).
        batches: from it on, without end.
        draws: of the steps, from where the start has left them.
        case: the settings, as columns of rows.
    """

    run: Run
    first: Tensor
    batches: Iterator[Tensor]
    draws: Draws
    case: dict[str, Any]

    def again(self) -> Begun:
        """The same run once more, with the same draws; its batches are those of this one."""
        run = copy(self.run)
        run.problem, run.estimator = duplicate(run.problem), deep_copy(run.estimator)
        run.history, run.states = list(run.history), dict(run.states)
        return Begun(run, self.first, self.batches, copy(self.draws), self.case)

    def generator_states(self) -> dict[str, Tensor]:
        """Of torch's generators, by type of device, for the steps."""
        device = self.first.device
        with self.draws.scope():
            states = {"cpu": torch.get_rng_state()}
            if device.type == "cuda":
                states["cuda"] = torch.cuda.get_rng_state(device)
        return states


@dataclass(frozen=True)
class Planned:
    """A run to come.

    Attributes:
        problem: as for `train`.
        seed: of initial weights, where the specification's code draws them, data order and draws.
        learning_rate: of φ and θ.
    """

    problem: Problem | str
    seed: int
    learning_rate: float


def begin(
    problem: Problem | str,
    estimator: Estimator | str,
    *,
    num_samples: int,
    batch_size: int | None,
    seed: int,
    device: str | None,
    dtype: torch.dtype | str | None,
    splits: tuple[str, str] = ("train", "test"),
    kept_at: Collection[int] = (),
) -> Begun:
    """Start a run of a copy of a problem; the arguments are those of `train`, the last two those of `Run`.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator breaks the protocol.
    """
    problem, x = placed(problem, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
    described = columns(problem, x)  # of the initial weights
    check_trainable(problem)
    label, problem = label_of(problem), duplicate(problem)
    estimator = resolve_estimator(estimator, seed)
    with seeded(seed, x.device):
        check_forward(problem, x)
    run = Run(problem, estimator, num_samples, seed, splits, kept_at)
    batches = endless(problem, len(x), seed)
    first = next(batches)
    draws = Draws(seed)
    with draws.scope():
        run.start(first)
        run.evaluate()
    case = {
        **described,
        "benchmark": "convergence",
        "problem": label,
        "estimator": estimator.label,
        "num_samples": num_samples,
        "seed": seed,
    }
    return Begun(run, first, chain((first,), batches), draws, case)


def begin_all(
    planned: Sequence[Planned], estimator: Estimator | str, optimizer: str, settings: Mapping[str, Any]
) -> list[Begun]:
    """All these runs, with their optimizers.

    Args:
        planned: those of one seed are of one problem, which begins once.
        estimator: as for `begin`.
        optimizer: one of `OPTIMIZERS`.
        settings: the other arguments of `begin`.

    Raises:
        UsageError: as `begin`.
        EstimatorError: as `begin`.
    """
    first: dict[int, Begun] = {}
    begun = []
    for one in planned:
        if one.seed in first:
            begun.append(first[one.seed].again())
        else:
            first[one.seed] = begin(one.problem, estimator, seed=one.seed, **settings)
            begun.append(first[one.seed])
    for each, one in zip(begun, planned, strict=True):
        each.run.optimize(optimizer, one.learning_rate)
    return begun


def batches_of_all(begun: Sequence[Begun]) -> Iterator[list[Tensor]]:
    """Those of all runs, x (B, ...) each; of one seed they are the same at every learning rate."""
    streams = {id(each.batches): each.batches for each in begun}
    while True:
        now = {key: next(stream) for key, stream in streams.items()}
        yield [now[id(each.batches)] for each in begun]


def finish(begun: Begun, learning_rate: float, importance_samples: int) -> TrainResult:
    """What a run leaves that has taken its steps."""
    run, final = begun.run, None
    if importance_samples and run.diverged is None:
        final = importance_weighted_log_likelihood(run.problem, run.heldout, importance_samples, run.seed)
    evaluated = weighted_elbo(run.problem.target(begun.first))
    return TrainResult(
        run.history,
        run.problem,
        run.estimator,
        final,
        run.diverged,
        learning_rate,
        begun.case,
        evaluated,
        states=run.states,
        heldout=run.heldout,
    )
