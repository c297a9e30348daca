"""Processes of this machine, one case each at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from ...cases.base import AnyCase, Output
from .base import Executor, Failure, Work
from .child import ChildPool


class LocalExecutor(Executor):
    """A thread for each process, which hands it a case and waits.

    Args:
        work: of the run.
        jobs: processes.
    """

    def __init__(self, work: Work, jobs: int) -> None:
        self.workers = f"{jobs} processes"
        self._pool = ChildPool(work, relay=_print)
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="elbograd")
        self._ended: SimpleQueue[tuple[AnyCase, Output | Failure]] = SimpleQueue()
        self._pending = 0
        self._running: dict[str, AnyCase] = {}

    def submit(self, case: AnyCase) -> None:
        self._pending += 1
        self._threads.submit(self._measure, case)

    def outcomes(self) -> Iterator[tuple[AnyCase, Output | Failure]]:
        while self._pending:
            ended = self._ended.get()
            self._pending -= 1
            yield ended

    def running(self) -> list[AnyCase]:
        return list(self._running.values())

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()

    def _measure(self, case: AnyCase) -> None:
        self._running[case.id] = case
        try:
            outcome = self._pool.measure(case, lambda text, share: self.tell(case, text, share))
        except Exception as error:  # the answer of a broken process may be anything
            outcome = Failure("vanished", f"the worker process gave no answer: {error}")
        del self._running[case.id]
        self._ended.put((case, outcome))


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # looked up anew: a live display takes its place
