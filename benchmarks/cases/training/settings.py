"""What the convergence benchmark has to know of a case. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base import Case, Settings


@dataclass(frozen=True)
class ConvergenceSettings(Settings):
    """How a model is trained.

    Attributes:
        steps: of each training run that is reported.
        seeds: of these runs, from the case's own.
        optimizer: "adam" or "sgd".
        learning_rates: the lowest and the highest that are tried; a single one is used as it is.
        trials: that are made to tune.
        tuning_steps: of each trial.
        targets: objectives in nats a datum whose time is told; None for what tuning has reached.
        save: keep the trained models; None for no.
    """

    steps: int
    seeds: int
    optimizer: str
    learning_rates: tuple[float, ...]
    trials: int
    tuning_steps: int
    targets: tuple[float, ...] | None = None
    save: bool | None = None

    @property
    def tuned(self) -> bool:
        """Whether there is something to tune."""
        return len(self.learning_rates) > 1


def arguments(case: Case[ConvergenceSettings]) -> dict[str, Any]:
    """What all training runs of a case have in common."""
    return {
        "num_samples": case.num_samples,
        "batch_size": case.batch_size,
        "device": case.device,
        "dtype": case.dtype,
    }


def run_steps(settings: ConvergenceSettings) -> int:
    """Steps of all runs together."""
    runs = settings.seeds * (2 if settings.tuned else 1)
    return runs * settings.steps + (settings.trials * settings.tuning_steps if settings.tuned else 0)
