"""The throughput benchmark: training steps and gradients a second, timed through pytest-benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ...estimators.errors import UsageError
from ..problems.specifications import specifications
from . import options as common
from .base import Benchmark, Case, Output, Settings
from .options import option
from .session import Session

_NO_TIMINGS = "pytest-benchmark gave no timings"


@dataclass(frozen=True)
class ThroughputSettings(Settings):
    """What is timed.

    Attributes:
        mode: "eager", "compiled" or "cuda-graph".
    """

    mode: str


_Case = Case[ThroughputSettings]


@dataclass(frozen=True)
class Throughput(Benchmark[ThroughputSettings]):
    """Time training steps and gradients, through pytest-benchmark.

    Attributes:
        seconds: of timing for the steps of a case, and again for its gradients.
        mode: "eager", "compiled" or "cuda-graph".
        compare: an earlier ``throughput.json``, or its folder; None for none.
    """

    name: ClassVar[str] = "throughput"
    settings: ClassVar[type[Settings]] = ThroughputSettings
    headline: ClassVar[str] = "steps_per_second"
    position: ClassVar[int] = 3
    alone: ClassVar[bool] = True
    quiet: ClassVar[bool] = True  # pytest-benchmark prints tables; a display would be timed with it

    num_samples: tuple[int, ...] = common.NUM_SAMPLES.default((2,))
    seconds: float = option(0.5, "--seconds", help="Time spent on each measurement.")
    mode: tuple[str, ...] = option(
        ("eager",), "--mode", metavar="NAME", help="eager, compiled or cuda-graph; repeatable."
    )
    compare: str | None = option(
        None, "--compare", metavar="FILE", help="An earlier run's throughput.json to compare with."
    )

    def quick(self) -> Self:
        return replace(self, seconds=min(self.seconds, 0.05))

    def grid(self) -> list[_Case]:
        """Every problem, S, B and mode."""
        self.check()
        return [
            case
            for problem in specifications(self.problem, "problem")
            for s in self.num_samples
            for batch in self.batch_sizes
            for mode in self.mode
            for case in self.cases(problem, s, batch, ThroughputSettings(mode))
        ]

    def check(self) -> None:
        super().check()
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be positive, not {self.seconds}")
        from ..problems.placement import check_device
        from ..throughput.modes import check_mode
        from ..throughput.suite import earlier_result

        for mode in self.mode:
            check_mode(mode, check_device(self.device))
        if self.compare is not None:
            earlier_result(self.compare)

    def expected_seconds(self, case: _Case) -> float | None:
        """Of the timing itself; what a compilation takes is not known."""
        return 2 * self.seconds if case.settings.mode == "eager" else None

    def measure_together(self, cases: Sequence[_Case], session: Session) -> Iterator[tuple[_Case, Output]]:
        """All cases in turn, several times over, so that a machine that slows down meets all alike."""
        from ..throughput.measure import ThroughputCase, run_throughput

        timed = [
            ThroughputCase(
                id=case.id,
                problem=case.problem,
                estimator=case.estimator,
                num_samples=case.num_samples,
                batch_size=case.batch_size,
                device=case.device,
                dtype=case.dtype,
                mode=case.settings.mode,
                seed=case.seed,
            )
            for case in cases
        ]
        assert session.folder is not None
        _, rows = run_throughput(timed, session.folder, compare=self.compare, seconds=self.seconds)
        for case in cases:
            own = [r for r in rows if r["case"] == case.id]
            # All are lost where a plugin of pytest disables benchmarks.
            yield case, Output(own or [case.row(metric=self.headline, status="failed", reason=_NO_TIMINGS)])
