"""How long the training runs of a case will take, from a few steps of some of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ...problems.protocol import Problem
from ...training.begin import Planned
from ...training.many import train_planned
from ..base import Case, size_of
from .settings import ConvergenceSettings, arguments, run_steps

_RUNS, _STEPS = 4, 20
_RATE = 1e-3
_EVALUATIONS = 21  # of a run, each as long as one of the pilot's


@dataclass(frozen=True)
class TrainingPilot:
    """What a few short training runs tell of the time of others.

    Attributes:
        case: which one.
        fixed: seconds a run that do not depend on the number of steps.
        unit: seconds a step and run.
    """

    case: Case[ConvergenceSettings]
    fixed: float
    unit: float

    def seconds(self, case: Case[ConvergenceSettings]) -> float:
        """Of another case, S and B taken to cost in proportion."""
        own = case.settings
        unit = self.unit * size_of(case) / size_of(self.case)
        runs = own.seeds * (2 if own.tuned else 1) + (own.trials / 4 if own.tuned else 0)
        return runs * self.fixed + run_steps(own) * unit


def training_pilot(case: Case[ConvergenceSettings], model: Callable[[str, int], Problem]) -> TrainingPilot:
    """Train a few runs for a few steps."""
    runs = min(_RUNS, case.settings.seeds)
    planned = [Planned(model(case.problem, case.seed + k), case.seed + k, _RATE) for k in range(runs)]

    def took(steps: int) -> float:
        began = time.perf_counter()
        train_planned(
            planned,
            case.estimator,
            steps=steps,
            optimizer=case.settings.optimizer,
            evaluate_every=steps,
            importance_samples=0,
            on_step=None,
            **arguments(case),
        )
        return (time.perf_counter() - began) / runs

    few, more = took(2), took(2 + _STEPS)
    # Two evaluations and what comes before the first step are in both.
    return TrainingPilot(case, few * _EVALUATIONS / 2, max(more - few, 0.0) / _STEPS)
