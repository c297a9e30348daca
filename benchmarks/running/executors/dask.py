"""The workers of a Dask cluster that is already running."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from ...cases.base import AnyCase, Output
from .base import Executor, Failure, Work, decode
from .dask_worker import measure_there, stop_there, versions_there

PATIENCE = 10.0  # seconds for the scheduler to answer
_GONE = "the Dask scheduler is gone"
_GLANCE = 2.0  # seconds between looks at what the workers do


class DaskExecutor(Executor):
    """Submits a task a case; a case whose worker dies is begun anew on another by the scheduler.

    The scheduler's ``allowed-failures`` says how often (3 by default); then the case is a failure for good.

    Args:
        work: of the run.
        scheduler: its address.

    Raises:
        UsageError: dask.distributed is not installed, no scheduler answers, or workers with another elbograd.
    """

    def __init__(self, work: Work, scheduler: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise UsageError(
                "--executor dask needs dask.distributed: pip install 'elbograd[dask]'"
            ) from error
        # What these have to say of lost workers would tear the display, which tells of them in its own way.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"--scheduler {scheduler}: {_short(error)}") from error
        self._work, self._token = work, uuid.uuid4().hex[:12]
        self._ended: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._pending: dict[str, tuple[AnyCase, Any]] = {}
        self._running: list[AnyCase] = []
        self._glanced = 0.0
        try:
            self.workers = self._inspect()
        except UsageError:
            self._client.close()
            raise

    def submit(self, case: AnyCase) -> None:
        key = f"elbograd-{case.id}-{uuid.uuid4().hex[:8]}"
        if self._gone:
            self._pending[key] = case, None
            self._ended.put((key, None))
            return
        future = self._client.submit(measure_there, self._token, self._work, case, key=key, pure=False)
        self._pending[key] = case, future
        future.add_done_callback(lambda ended: self._ended.put((key, ended)))

    def outcomes(self) -> Iterator[tuple[AnyCase, Output | Failure]]:
        while self._pending:
            self._glance()
            try:
                key, future = self._ended.get(timeout=_GLANCE)
            except Empty:
                if self._gone:
                    for lost in self._pending:
                        self._ended.put((lost, None))
                continue
            if key in self._pending:
                case, _ = self._pending.pop(key)
                yield case, Failure("refused", _GONE) if future is None else _outcome(future)

    @property
    def _gone(self) -> bool:
        """Whether the client has given up on the scheduler."""
        return self._client.status in ("closing", "closed")

    def running(self) -> list[AnyCase]:
        return self._running

    def close(self) -> None:
        futures = [future for _, future in self._pending.values() if future is not None]
        try:
            if futures:
                self._client.cancel(futures, force=True)
            self._client.run(stop_there, self._token, on_error="ignore")
            self._client.close(timeout=PATIENCE)
        except Exception:  # the scheduler may be gone, and its workers with it
            self._client.close(timeout=1)

    def _inspect(self) -> str:
        """What the workers are, in a few words.

        Raises:
            UsageError: one of them would give other numbers, or none.
        """
        check_versions(versions_there(), self._client.run(versions_there, on_error="return"))
        threads = self._client.nthreads()
        if not threads:
            return "Dask workers: none yet, waiting for them"
        return f"{len(threads)} Dask workers, {sum(threads.values())} cases at a time"

    def _glance(self) -> None:
        """Note what is being measured; no more often than need be, since the scheduler has to be asked."""
        if time.monotonic() - self._glanced < _GLANCE:
            return
        self._glanced = time.monotonic()
        try:
            threads = self._client.nthreads()
            keys = {w: k for w, k in self._client.processing().items() if k}
        except Exception:  # while the connection is lost the display may be stale
            return
        first = [key for worker, mine in keys.items() for key in mine[: threads.get(worker, 0)]]
        self._running = [self._pending[str(key)][0] for key in first if str(key) in self._pending]


def check_versions(ours: Mapping[str, str | None], answers: Mapping[str, object]) -> None:
    """Raise UsageError unless every worker has what we have.

    Args:
        ours: package -> version.
        answers: worker -> the same of it, or the exception that asking it raised.
    """
    for worker, theirs in answers.items():
        if not isinstance(theirs, Mapping):
            what = _short(theirs) if isinstance(theirs, BaseException) else repr(theirs)
            raise UsageError(f"Dask worker {worker} cannot run elbograd: {what}")
        for package, version in theirs.items():
            if version != ours[package]:
                raise UsageError(f"Dask worker {worker} has {package} {version}, not {ours[package]}")


def _outcome(future: Any) -> Output | Failure:
    if future.cancelled() or future.status == "lost":
        return Failure("vanished", "the Dask scheduler lost it")
    try:
        return decode(future.result())
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            tries = getattr(error, "allowed_failures", 0) + 1
            # The scheduler has tried again already: "refused" asks for no more of it.
            return Failure("refused", f"{tries} Dask workers that had begun it have died")
        return Failure("raised", f"{type(error).__name__}: {_short(error)}")


def _short(error: BaseException) -> str:
    return one_line(error).rstrip(" .")
