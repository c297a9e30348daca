"""What a training step through the suite costs beside the same step written by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ....estimators.plugins.registry import create
from ...statistics.intervals import median_interval
from ...training.step import TrainingStep
from .by_hand import STEPS, Step
from .models import SizedVAE

_CALLS = 50
_BATCH = 64
_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class StepCost:
    """One estimator's step, through the suite and by hand.

    Attributes:
        suite: median seconds.
        by_hand: median seconds.
        ratio: median over rounds of suite / by hand, with its 95% interval from order statistics.
    """

    suite: float
    by_hand: float
    ratio: tuple[float, float, float]


def step_cost(size: tuple[int, int, int, int], name: str, num_samples: int, rounds: int) -> StepCost:
    """Interleave blocks of both, in turn first, on two copies of one model."""
    suite, by_hand, x = _steps(size, name, num_samples)
    _seconds(suite, x), _seconds(by_hand, x)
    pairs = []
    for k in range(rounds):
        if k % 2:
            ours, theirs = _seconds(suite, x), _seconds(by_hand, x)
        else:
            theirs, ours = _seconds(by_hand, x), _seconds(suite, x)
        pairs.append((ours, theirs))
    return StepCost(
        median(ours for ours, _ in pairs),
        median(theirs for _, theirs in pairs),
        median_interval([ours / theirs for ours, theirs in pairs]),
    )


def _steps(size: tuple[int, int, int, int], name: str, num_samples: int) -> tuple[Step, Step, Tensor]:
    mine, other = SizedVAE(*size), SizedVAE(*size)
    x = next(mine.batches("train", _BATCH, torch.Generator().manual_seed(0)))
    estimator = create(name)
    estimator.init(mine.posterior(mine.encoder(x)), mine.target(x))
    suite = TrainingStep(mine, estimator.train(), [_optimizer(mine)], num_samples)
    return suite, STEPS[name](other, _optimizer(other), num_samples), x  # type: ignore[return-value]


def _optimizer(problem: SizedVAE) -> torch.optim.Optimizer:
    parameters = [*problem.encoder.parameters(), *problem.decoder.parameters()]
    return torch.optim.Adam(parameters, lr=_LEARNING_RATE)


def _seconds(step: Step, x: Tensor) -> float:
    start = time.perf_counter()
    for _ in range(_CALLS):
        step(x)
    return (time.perf_counter() - start) / _CALLS
