"""One case after another in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ...cases.grid import Case
from .base import Executor, Failure, Rows, Work
from .measure import measure


class SerialExecutor(Executor):
    """Measures in the calling thread; plugins are taken to be loaded.

    Args:
        work: of the run.
    """

    def __init__(self, work: Work) -> None:
        from ...cases import execute  # noqa: F401 - seconds that are of no case

        self._work = work
        self._waiting: deque[Case] = deque()
        self._running: list[Case] = []

    def submit(self, case: Case) -> None:
        self._waiting.append(case)

    def outcomes(self) -> Iterator[tuple[Case, Rows | Failure]]:
        while self._waiting:
            case = self._waiting.popleft()
            self._running = [case]
            outcome = measure(case, self._work)
            self._running = []
            yield case, outcome

    def running(self) -> list[Case]:
        return self._running

    def close(self) -> None:
        self._waiting.clear()
