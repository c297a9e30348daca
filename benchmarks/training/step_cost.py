"""What a training step costs, of a run that is alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import torch

from ...estimators.base import Estimator
from ..gradients import count_evaluations
from ..problems.as_trained import as_trained, eta_of
from ..problems.datum_index import target_of
from .begin import Begun, Planned, begin_all
from .step import out_of_domain

_WARMUP, _BLOCKS, _OF_A_BLOCK = 5, 9, 5  # steps
_RATE = 1e-4  # at which no step goes astray


@dataclass(frozen=True)
class StepCost:
    """Of one step.

    Attributes:
        seconds: median over blocks of steps; NaN where they were not to be measured.
        evaluations: of log p(x|z), for the whole batch.
    """

    seconds: float
    evaluations: int


@as_trained()
def step_cost(
    planned: Planned, estimator: Estimator | str, optimizer: str, *, timed: bool = True, **settings: Any
) -> StepCost:
    """Measure the steps of a run.

    Args:
        planned: the run; its learning rate does not matter.
        estimator: as for `train`.
        optimizer: as for `train`.
        timed: whether seconds may be measured.
        settings: the other arguments of `begin`.

    Raises:
        UsageError: as `begin`.
        EstimatorError: as `begin`.
    """
    slow = Planned(planned.problem, planned.seed, _RATE)
    (begun,) = begin_all([slow], estimator, optimizer, settings)
    with begun.draws.scope():
        evaluations = _evaluations(begun)
        if not timed:
            return StepCost(float("nan"), evaluations)
        try:
            blocks = list(islice(_blocks(begun), _BLOCKS))
        except (ValueError, RuntimeError) as error:
            if not out_of_domain(error):
                raise
            return StepCost(float("nan"), evaluations)  # it diverges at once
    return StepCost(median(blocks), evaluations)


def _evaluations(begun: Begun) -> int:
    run, x = begun.run, begun.first
    target, eta = target_of(run.problem, x), eta_of(run.problem, x)
    return len(x) * count_evaluations(run.problem, run.estimator, target, eta, run.num_samples)


def _blocks(begun: Begun) -> Iterator[float]:
    """Seconds a step, of some steps after the others."""
    step = begun.run.training_step
    for x in islice(begun.batches, _WARMUP):
        step(x)
    while True:
        batches = list(islice(begun.batches, _OF_A_BLOCK))
        start = _now(begun)
        for x in batches:
            step(x)
        yield (_now(begun) - start) / _OF_A_BLOCK


def _now(begun: Begun) -> float:
    if begun.first.is_cuda:
        torch.cuda.synchronize(begun.first.device)
    return time.perf_counter()
