"""The convergence benchmark: the held-out objective along training with each estimator, over seeds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import parse
from ..problems.registry import REGISTRY, load_under
from ..problems.specifications import specifications
from ..seeds import derived
from . import options as common
from .base import Benchmark, Case, Row, Settings, size_of, untimed
from .options import at_least, option
from .session import Session

if TYPE_CHECKING:
    from ..problems.protocol import Problem

#: The reason of rows whose model seeds itself: what seeds vary is then the order of data and the draws alone.
SHARED_WEIGHTS = "all seeds begin with the same weights, which the model fixes itself"
_PILOT_STEPS = 20  # of training: as many evaluations as a whole run has


@dataclass(frozen=True)
class ConvergenceSettings(Settings):
    """How a model is trained.

    Attributes:
        steps: of each training run.
        seeds: training runs, with seeds that follow the case's.
        optimizer: "adam" or "sgd".
        learning_rates: to tune over; a single one is used as it is.
        tuning_steps: of each tuning run.
    """

    steps: int
    seeds: int
    optimizer: str
    learning_rates: tuple[float, ...]
    tuning_steps: int


_Case = Case[ConvergenceSettings]


@dataclass(frozen=True)
class Convergence(Benchmark[ConvergenceSettings]):
    """Train with each estimator: the objective against steps and seconds."""

    name: ClassVar[str] = "convergence"
    settings: ClassVar[type[Settings]] = ConvergenceSettings
    headline: ClassVar[str] = "heldout_objective"
    position: ClassVar[int] = 2

    num_samples: tuple[int, ...] = common.NUM_SAMPLES.default((2,))
    steps: int = option(2000, "--steps", help="Training steps.")
    seeds: int = option(3, "--seeds", help="Repetitions.")
    optimizer: str = option("adam", "--optimizer", metavar="NAME", help="adam or sgd.")
    learning_rate: tuple[float, ...] = option(
        (1e-3, 3e-3, 1e-2),
        "--learning-rate",
        metavar="X[,X]",
        help="Rates to tune over, e.g. 0.001,0.003; one is used as it is.",
    )
    tuning_steps: int = option(500, "--tuning-steps", help="Steps of each tuning run.")

    def quick(self) -> Self:
        return replace(
            self,
            steps=min(self.steps, 100),
            seeds=2,
            tuning_steps=20,
            learning_rate=self.learning_rate[:1],
        )

    def grid(self) -> list[_Case]:
        """Every problem, S and B; the seeds are repetitions inside a case."""
        self.check()
        settings = ConvergenceSettings(
            self.steps, self.seeds, self.optimizer, self.learning_rate, self.tuning_steps
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
        at_least("--tuning-steps", 1, self.tuning_steps)
        for rate in self.learning_rate:
            if not 0 < rate < float("inf"):
                raise UsageError(f"--learning-rate must be positive, not {rate}")
        if self.optimizer not in ("adam", "sgd"):
            raise UsageError(f"unknown optimizer {self.optimizer!r}: choose from adam, sgd")

    @classmethod
    def execute(cls, case: _Case, session: Session) -> list[Row]:
        from ..training.train import train, tune_learning_rate

        settings, given = case.settings, _arguments(case)
        rate = tune_learning_rate(
            case.problem,
            case.estimator,
            settings.learning_rates,
            steps=settings.tuning_steps,
            seed=derived(case.seed, "tuning"),
            **given,
        )
        rows: list[Row] = []
        for repetition in range(settings.seeds):
            seed = derived(case.seed, "repetition", repetition)
            problem = cls.model(case.problem, seed)
            run = train(problem, case.estimator, steps=settings.steps, learning_rate=rate, seed=seed, **given)
            rows += run.rows()
        rows = _with_shared_weights_told(rows)
        if not session.timings:
            rows = [untimed(r) if r["metric"] == "seconds" else r for r in rows]
        return case.complete(rows)

    @classmethod
    def model(cls, problem: str, seed: int) -> Problem:
        """With initial weights of its own for each seed; a seed among its parameters is set to it."""
        if "seed" not in parse(problem).parameters and REGISTRY.accepts(problem, "seed"):
            return load_under(seed, problem, seed=seed)
        return load_under(seed, problem)

    @classmethod
    def pilot(cls, case: _Case) -> TrainingPilot:
        return _pilot(case)


def _arguments(case: _Case) -> dict[str, Any]:
    """What all training runs of a case have in common."""
    return {
        "num_samples": case.num_samples,
        "batch_size": case.batch_size,
        "optimizer": case.settings.optimizer,
        "device": case.device,
        "dtype": case.dtype,
    }


def _with_shared_weights_told(rows: list[Row]) -> list[Row]:
    """Where several seeds began with the same weights the rows say so: their interval tells of less."""
    seeds, weights = ({r[column] for r in rows} for column in ("seed", "weights"))
    if len(seeds) < 2 or len(weights) > 1:
        return rows
    return [{**r, "reason": r["reason"] or SHARED_WEIGHTS} if r["status"] == "done" else r for r in rows]


@dataclass(frozen=True)
class TrainingPilot:
    """What a short training run tells of the time of others.

    Attributes:
        case: which one.
        fixed: seconds that do not depend on the number of steps.
        unit: seconds a step.
    """

    case: _Case
    fixed: float
    unit: float

    def seconds(self, case: _Case) -> float:
        """Of another case, S and B taken to cost in proportion."""
        settings, rates = case.settings, len(case.settings.learning_rates)
        unit = self.unit * size_of(case) / size_of(self.case)
        tuned = rates if rates > 1 else 0
        steps = settings.seeds * settings.steps + tuned * settings.tuning_steps
        return (settings.seeds + tuned) * self.fixed + steps * unit


def _pilot(case: _Case) -> TrainingPilot:
    from ..training.train import train

    began = time.perf_counter()
    result = train(
        case.problem,
        case.estimator,
        steps=_PILOT_STEPS,
        learning_rate=case.settings.learning_rates[0],
        importance_samples=0,
        seed=case.seed,
        **_arguments(case),
    )
    total = time.perf_counter() - began
    training = result.history[-1].seconds
    return TrainingPilot(case, total - training, training / _PILOT_STEPS)
