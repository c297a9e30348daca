"""Advice: all estimators measured and ranked on a user's model, and a sentence on which to use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...estimators.errors import UsageError
from ..problems.specifications import specifications
from . import options as common
from .base import Benchmark, Case, Output, Row, Settings
from .options import at_least, option
from .session import Session
from .variance import Variance

if TYPE_CHECKING:
    from ..advice.candidates import Candidate, LeftOut
    from ..advice.result import Advice
    from .support import Support

_COMMAND = "advise"


@dataclass(frozen=True)
class AdviseSettings(Settings):
    """What is asked of one advice.

    Attributes:
        estimators: to choose from; () for the whole catalogue.
        num_samples: S to choose from.
        train_steps: N, to measure after N steps too; 0 for the current weights alone.
        budget: seconds of measuring.
        route: "factorized" or "full".
    """

    estimators: tuple[str, ...]
    num_samples: tuple[int, ...]
    train_steps: int
    budget: float
    route: str


@dataclass(frozen=True)
class AdvisedSettings(Settings):
    """Of the variances that an advice rests on, whose rows are those of the variance benchmark."""

    step: int
    budget: float
    command: str = _COMMAND


_Case = Case[AdviseSettings]


@dataclass(frozen=True)
class Advise(Benchmark[AdviseSettings]):
    """Say which estimator to use on a model: all are measured and ranked.

    Attributes:
        num_samples: S to choose from.
        route: "factorized" or "full".
        train_steps: N, to measure after N steps too; 0 for the current weights alone.
        budget: seconds of measuring, a problem.
    """

    name: ClassVar[str] = _COMMAND
    settings: ClassVar[type[Settings]] = AdviseSettings
    headline: ClassVar[str] = "work_normalized_variance"
    position: ClassVar[int] = 5
    alone: ClassVar[bool] = True
    text_file: ClassVar[str] = "advice.txt"

    num_samples: tuple[int, ...] = common.NUM_SAMPLES.default((1, 4, 16))
    route: str = common.ROUTE.default("factorized")
    train_steps: int = option(
        0, "--train-steps", help="Measure after so many steps of training too; 0 for the weights as they are."
    )
    budget: float = option(60.0, "--budget", help="Seconds of measuring, a problem; training comes on top.")

    def quick(self) -> Self:
        return replace(self, budget=min(self.budget, 10.0), train_steps=min(self.train_steps, 100))

    def chosen(self) -> list[str]:
        """None whose cases could be counted: a case is about all of them, and says itself what cannot be."""
        return []

    def grid(self) -> list[_Case]:
        """One case a problem."""
        self.check()
        problems = specifications(self.problem, "problem")
        settings = AdviseSettings(
            tuple(specifications(self.estimator, "estimator")),
            self.num_samples,
            self.train_steps,
            self.budget,
            self.route,
        )
        sizes = min(self.num_samples), self.batch_sizes[0]
        return [self.case(problem, "", *sizes, settings) for problem in problems]

    def check(self) -> None:
        super().check()
        at_least("--train-steps", 0, self.train_steps)
        if not 0 < self.budget < float("inf"):
            raise UsageError(f"--budget must be a positive number of seconds, not {self.budget}")
        if len(self.batch_size) > 1:
            raise UsageError("--batch-size: advice is for one batch size")

    def expected_seconds(self, case: _Case) -> float:
        return self.budget

    def measure_together(self, cases: Sequence[_Case], session: Session) -> Iterator[tuple[_Case, Output]]:
        for case in cases:
            advice = _advise(case, session)
            yield case, Output(_rows(case, advice), str(advice), advice.interrupted)

    @classmethod
    def outcome(cls, rows: Sequence[Row]) -> str:
        ranked = {(r["estimator"], r["num_samples"], r["step"]) for r in rows}
        return f"{len(ranked)} measured" if ranked else "nothing could be measured"

    @classmethod
    def why_not(cls, case: _Case, support: Support) -> str | None:
        """None: what cannot be advised on at all is an error."""
        _candidates(case)
        return None

    @classmethod
    def title(cls, case: _Case) -> str:
        return case.problem

    @classmethod
    def details(cls, case: _Case) -> list[str]:
        """What would be measured, and what would not, with the reason."""
        steps = case.settings.train_steps
        points = f" at steps 0 and {steps}" if steps else ""
        candidates, left_out = _candidates(case)
        return [
            f"{c.label}, S = {', '.join(map(str, c.sizes))}, {case.problem}{points} ({c.objective})"
            for c in candidates
        ] + [f"{label}, {case.problem}: left out, {reason}" for label, reason in left_out]

    @classmethod
    def ids_in(cls, cases: Sequence[_Case], rows: Sequence[Row]) -> set[str]:
        """All rows of earlier advice; what else the folder holds stays."""
        return {r["case"] for r in rows if f'"command": "{_COMMAND}"' in r["parameters"]}


def _arguments(case: _Case) -> dict[str, Any]:
    settings = case.settings
    return {
        "num_samples": settings.num_samples,
        "train_steps": settings.train_steps,
        "budget": settings.budget,
        **_where(case),
    }


def _where(case: _Case) -> dict[str, Any]:
    return {
        "batch_size": case.batch_size,
        "route": case.settings.route,
        "seed": case.seed,
        "device": case.device,
        "dtype": case.dtype,
    }


def _advise(case: _Case, session: Session) -> Advice:
    from ..advice.advise import advise

    estimators = case.settings.estimators or None
    return advise(case.problem, estimators, **_arguments(case), on_progress=session.tell)


def _candidates(case: _Case) -> tuple[list[Candidate], list[LeftOut]]:
    """What can be measured, and what is left out.

    Raises:
        UsageError: the problem, or an estimator that was asked for, cannot be used.
    """
    from ..advice.advise import prepare_problem
    from ..advice.candidates import find_candidates

    problem, x = prepare_problem(case.problem, None, **_where(case))
    try:
        return find_candidates(problem, x, case.settings.estimators or None, case.settings.num_samples)
    except UsageError as error:
        raise UsageError(f"problem {case.problem}: {error}") from error


def _rows(case: _Case, advice: Advice) -> list[Row]:
    """Rows of variances; each estimator at each S and step is a case of its own there."""
    rows = []
    for one in advice.rows():
        measured = Case(
            Variance,
            case.problem,
            one["estimator"],
            one["num_samples"],
            one["batch_size"],
            case.seed,
            case.device,
            case.dtype,
            AdvisedSettings(one["step"], case.settings.budget),
        )
        rows += measured.complete([{**one, "seed": case.seed}])
    return rows
