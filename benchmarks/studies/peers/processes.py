"""The parent's end of a contender's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

_PATIENCE = 600.0  # seconds for one answer
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerError(RuntimeError):
    """A contender failed or is not there; the message is one line."""


class Worker:
    """One contender's process; it works only between a question and its answer.

    Args:
        library: a key of `LIBRARIES`, or ``module:Class``.
        threads: of torch, the same for all.
        log: where its standard error goes.

    Raises:
        WorkerError: it did not come up, a library that is not installed included.
    """

    def __init__(self, library: str, threads: int, log: Path) -> None:
        self.library, self.log = library, log
        command = [sys.executable, "-m", f"{__package__}.worker", library, str(threads)]
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        try:
            self.version: str = self._answer()["version"]
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerError: the contender raised, died or took too long.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or closed
            raise WorkerError(self._how_it_ended()) from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        """For ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = Timer(_PATIENCE, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise WorkerError(self._how_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return f"the process of {self.library} ended with status {status}: {' '.join(last) or 'no message'}"
