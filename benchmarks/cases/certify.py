"""Certification: each estimator's claims, tested against exact answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from ...estimators.plugins.registry import BUILTIN_NAMES
from ..certification.levels import CONTRACT_SHARE, TOLERANCE, check_range, confirm_level
from ..certification.oracle_problems import ORACLE_PROBLEMS
from ..problems.specifications import label_of_text, specifications
from ..rows.certificate import outcome
from . import options as common
from .base import Benchmark, Case, Row, Settings
from .options import option
from .session import Session

if TYPE_CHECKING:
    from .support import Support


@dataclass(frozen=True)
class CertifySettings(Settings):
    """How much is asked of a certificate.

    Attributes:
        confidence: of the bias bound.
        tolerance: relative bias that the bound must reach.
        seconds: that a problem may take; None for a fixed amount of work.
        confirm_level: of the tests' confirmations, which all tests of a run share.
    """

    confidence: float
    tolerance: float
    seconds: float | None
    confirm_level: float


_Case = Case[CertifySettings]


@dataclass(frozen=True)
class Certify(Benchmark[CertifySettings]):
    """Test estimators' claims against exact answers, and bound their bias.

    Sizes and the floating-point type are the suite's own, not the user's.

    Attributes:
        confidence: of the bias bound.
        tolerance: relative bias that the bound must reach.
        budget: seconds an estimator; None for a fixed amount of work.
    """

    name: ClassVar[str] = "certify"
    settings: ClassVar[type[Settings]] = CertifySettings
    headline: ClassVar[str] = "check"
    position: ClassVar[int] = 4
    fills_cores: ClassVar[bool] = True

    problem: tuple[str, ...] = common.PROBLEM.default(ORACLE_PROBLEMS)
    num_samples: tuple[int, ...] = (1,)
    batch_size: tuple[int, ...] = ()
    dtype: str = "float64"
    confidence: float = option(0.99, "--confidence", help="Of the bias bound.")
    tolerance: float = option(
        TOLERANCE, "--tolerance", help="Relative bias that the bound must reach, e.g. 0.01."
    )
    budget: float | None = option(
        None, "--budget", help="Seconds an estimator, in place of a fixed amount of work."
    )

    def quick(self) -> Self:
        return replace(self, problem=self.problem[:1], tolerance=max(self.tolerance, 0.05))

    def estimators(self) -> list[str]:
        return self.chosen() or list(BUILTIN_NAMES)

    def grid(self) -> list[_Case]:
        """For every estimator the conformance suite (without a problem), and every problem."""
        self.check()
        problems = specifications(self.problem, "problem")
        estimators = self.estimators()
        level = confirm_level(len(problems), len(estimators))
        settings = {
            problem: CertifySettings(self.confidence, self.tolerance, self._share(problem, problems), level)
            for problem in ("", *problems)
        }
        return [self.case(problem, e, 1, None, own) for e in estimators for problem, own in settings.items()]

    def _share(self, problem: str, problems: Sequence[str]) -> float | None:
        """Seconds of the budget for a problem, or for the conformance suite (without one)."""
        if self.budget is None:
            return None
        return self.budget * ((1 - CONTRACT_SHARE) / len(problems) if problem else CONTRACT_SHARE)

    def check(self) -> None:
        super().check()
        check_range(self.confidence, self.tolerance, self.budget)

    def expected_seconds(self, case: _Case) -> float | None:
        return case.settings.seconds

    @classmethod
    def execute(cls, case: _Case, session: Session) -> list[Row]:
        from ..certification.candidate import builder
        from ..certification.contract import certify_contract
        from ..certification.levels import Settings as CellSettings
        from ..certification.problem import certify_problem
        from ..problems.point import resolve_problem

        given = case.settings
        settings = CellSettings(
            confidence=given.confidence,
            tolerance=given.tolerance,
            confirm_level=given.confirm_level,
            seed=case.seed,
            seconds=math.inf if given.seconds is None else given.seconds,
        )
        build = builder(case.estimator)
        if not case.problem:
            return case.complete(certify_contract(build, settings).rows())
        problem, label = resolve_problem(case.problem, case.seed), label_of_text(case.problem)
        found = certify_problem(build, problem, label, settings, device=case.device)
        return case.complete(found.rows())

    @classmethod
    def outcome(cls, rows: Sequence[Row]) -> str:
        return outcome(rows)

    @classmethod
    def why_not(cls, case: _Case, support: Support) -> str | None:
        """Asked at the smallest S that the estimator can do with: certification tries several from it on."""
        estimator = support.estimator(case.estimator)
        if not case.problem:
            return None
        least = estimator.min_samples
        samples = max(case.num_samples, least) if isinstance(least, int) else case.num_samples
        return support.why_not(case.estimator, case.problem, case.batch_size, samples)

    @classmethod
    def title(cls, case: _Case) -> str:
        what = label_of_text(case.problem) if case.problem else "conformance suite"
        return f"{label_of_text(case.estimator)}, {what}"
