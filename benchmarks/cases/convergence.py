"""The convergence benchmark: fairly tuned training with each estimator, over seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import parse
from ..problems.registry import REGISTRY, load_under
from ..problems.specifications import specifications
from . import options as common
from .base import Benchmark, Case, Row, Settings
from .options import at_least, option
from .session import Session
from .training.settings import ConvergenceSettings

if TYPE_CHECKING:
    from ..problems.protocol import Problem
    from .training.pilot import TrainingPilot


_Case = Case[ConvergenceSettings]


@dataclass(frozen=True)
class Convergence(Benchmark[ConvergenceSettings]):
    """Tune and train with each estimator: the objective against steps, evaluations and seconds."""

    name: ClassVar[str] = "convergence"
    settings: ClassVar[type[Settings]] = ConvergenceSettings
    headline: ClassVar[str] = "heldout_objective"
    position: ClassVar[int] = 2

    num_samples: tuple[int, ...] = common.NUM_SAMPLES.default((2,))
    steps: int = option(2000, "--steps", help="Training steps.")
    seeds: int = option(10, "--seeds", help="Training runs that are reported.")
    optimizer: str = option("adam", "--optimizer", metavar="NAME", help="adam or sgd.")
    learning_rate: tuple[float, ...] = option(
        (1e-4, 3e-2),
        "--learning-rate",
        metavar="LOW,HIGH",
        help="Range to tune in, e.g. 0.0001,0.03; a single rate is used as it is.",
    )
    trials: int = option(20, "--trials", help="Settings to try, the same number for every estimator.")
    tuning_steps: int = option(500, "--tuning-steps", help="Steps of each trial.")
    target: tuple[float, ...] = option(
        (),
        "--target",
        metavar="X[,X]",
        help="Held-out objectives, in nats, whose time is told; by default of what tuning reaches.",
    )
    save: bool = option(False, "--save", help="Keep the trained models, for variance --trajectory.")

    def quick(self) -> Self:
        return replace(self, steps=min(self.steps, 100), seeds=2, tuning_steps=20, trials=min(self.trials, 3))

    def grid(self) -> list[_Case]:
        """Every problem, S and B; trials and seeds are inside a case."""
        self.check()
        settings = ConvergenceSettings(
            self.steps,
            self.seeds,
            self.optimizer,
            self.learning_rate,
            self.trials,
            self.tuning_steps,
            self.target or None,
            self.save or None,
        )
        return [
            case
            for problem in specifications(self.problem, "problem")
            for s in self.num_samples
            for batch in self.batch_sizes
            for case in self.cases(problem, s, batch, settings)
        ]

    def check(self) -> None:
        super().check()
        at_least("--steps", 1, self.steps)
        at_least("--seeds", 1, self.seeds)
        at_least("--trials", 1, self.trials)
        at_least("--tuning-steps", 1, self.tuning_steps)
        for rate in self.learning_rate:
            if not 0 < rate < float("inf"):
                raise UsageError(f"--learning-rate must be positive, not {rate}")
        if len(self.learning_rate) > 2 or sorted(set(self.learning_rate)) != list(self.learning_rate):
            given = ",".join(f"{rate:g}" for rate in self.learning_rate)
            raise UsageError(f"--learning-rate takes one rate, or the range LOW,HIGH to tune in, not {given}")
        for target in self.target:
            if not abs(target) < float("inf"):
                raise UsageError(f"--target must be a finite number of nats, not {target}")
        if self.optimizer not in ("adam", "sgd"):
            raise UsageError(f"unknown optimizer {self.optimizer!r}: choose from adam, sgd")

    @classmethod
    def execute(cls, case: _Case, session: Session) -> list[Row]:
        from .training.run import ConvergenceRun

        return case.complete(ConvergenceRun(case, session, cls.model).rows())

    @classmethod
    def model(cls, problem: str, seed: int) -> Problem:
        """With initial weights of its own for each seed; a seed among its parameters is set to it."""
        if "seed" not in parse(problem).parameters and REGISTRY.accepts(problem, "seed"):
            return load_under(seed, problem, seed=seed)
        return load_under(seed, problem)

    @classmethod
    def pilot(cls, case: _Case) -> TrainingPilot:
        from .training.pilot import training_pilot

        return training_pilot(case, cls.model)

    @classmethod
    def details(cls, case: _Case) -> list[str]:
        own = case.settings
        twice = ", and as many untuned" if own.tuned else ""
        tuning = f"{own.trials} trials of {own.tuning_steps:,} steps, then " if own.tuned else ""
        return [f"{case.title}: {tuning}{own.seeds} runs of {own.steps:,} steps{twice}"]
