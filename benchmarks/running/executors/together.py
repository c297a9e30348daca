"""All cases of a kind together in this process, as what is nothing but timings has to be."""

from __future__ import annotations

from collections.abc import Iterator

from ...cases.base import AnyBenchmark, AnyCase, Output
from .base import Executor, Work
from .measure import open_session


class TogetherExecutor(Executor):
    """Lets the kind measure its cases as it sees fit, with all threads of the process; none is tried again.

    What goes wrong with one case is for the kind to tell in its rows; what it raises ends the run.

    Args:
        benchmark: that all cases are of.
        work: of the run.
    """

    def __init__(self, benchmark: AnyBenchmark, work: Work) -> None:
        self._benchmark, self._work = benchmark, work
        self._waiting: list[AnyCase] = []

    def submit(self, case: AnyCase) -> None:
        self._waiting.append(case)

    def outcomes(self) -> Iterator[tuple[AnyCase, Output]]:
        if not self._waiting:
            return
        session = open_session(self._work, lambda text, share: self.tell(self._waiting[0], text, share))
        for case, output in self._benchmark.measure_together(tuple(self._waiting), session):
            self._waiting.remove(case)
            yield case, output

    def running(self) -> list[AnyCase]:
        return self._waiting[:1]

    def close(self) -> None:
        self._waiting.clear()
