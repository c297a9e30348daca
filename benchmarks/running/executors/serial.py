"""One case after another in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ...cases.base import AnyCase, Output
from .base import Executor, Failure, Work
from .measure import measure, open_session


class SerialExecutor(Executor):
    """Measures in the calling thread; plugins are taken to be loaded.

    Args:
        work: of the run.
    """

    def __init__(self, work: Work) -> None:
        import torch  # noqa: F401 - seconds that are of no case

        self._work = work
        self._waiting: deque[AnyCase] = deque()
        self._running: list[AnyCase] = []

    def submit(self, case: AnyCase) -> None:
        self._waiting.append(case)

    def outcomes(self) -> Iterator[tuple[AnyCase, Output | Failure]]:
        session = open_session(self._work, lambda text, share: self.tell(self._running[0], text, share))
        while self._waiting:
            case = self._waiting.popleft()
            self._running = [case]
            outcome = measure(case, session, self._work.threads)
            self._running = []
            yield case, outcome

    def running(self) -> list[AnyCase]:
        return self._running

    def close(self) -> None:
        self._waiting.clear()
