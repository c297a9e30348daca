"""What a training run leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...estimators.base import Estimator
from ..problems.protocol import Problem
from ..rows.schema import row
from .state import State

NOT_FINITE = "the objective is not finite"  # the reason of a run that has diverged


@dataclass(frozen=True)
class Checkpoint:
    """The objective at one step, in nats a datum; ``seconds`` of training only."""

    step: int
    seconds: float
    train_objective: float
    heldout_objective: float


@dataclass
class TrainResult:
    """One training run.

    Attributes:
        history: the objective at each evaluation, step 0 first.
        problem: the trained copy.
        estimator: the copy whose state was trained along.
        heldout_log_likelihood: importance-weighted, nats a datum; None where there is no prior.
        diverged: step at which the objective was found not to be finite, or None.
        learning_rate: of φ and θ.
        case: the settings, as columns of `rows`.
        objective: what the objectives in `history` are, where that is not the plain ELBO.
        notes: what else has to be known of the run, each in a few words.
        states: step -> the model as it was then, where that was asked for.
        heldout: data that it was evaluated on, (N, ...).
    """

    history: list[Checkpoint]
    problem: Problem
    estimator: Estimator
    heldout_log_likelihood: float | None
    diverged: int | None
    learning_rate: float
    case: dict[str, Any] = field(default_factory=dict)
    objective: str = ""
    notes: tuple[str, ...] = ()
    states: dict[int, State] = field(default_factory=dict)
    heldout: Tensor | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Long rows: the objectives and seconds at each step, the final log-likelihood."""
        rows, named = [], {**self.case, "objective": self.objective}
        for point in self.history:
            failed = point.step == self.diverged
            common = {**named, "step": point.step, "status": "diverged" if failed else "done"}
            common["reason"] = NOT_FINITE if failed else ""
            for metric, unit in (("train_objective", "nat"), ("heldout_objective", "nat"), ("seconds", "s")):
                rows.append(row(**common, metric=metric, value=getattr(point, metric), unit=unit))
        last = {**named, "step": self.history[-1].step}
        if self.heldout_log_likelihood is not None:
            value = self.heldout_log_likelihood
            rows.append(row(**last, metric="heldout_log_likelihood", value=value, unit="nat"))
        rows.append(row(**last, metric="learning_rate", value=self.learning_rate))
        rows += [row(**last, metric="note", value=math.nan, reason=note) for note in self.notes]
        return rows
