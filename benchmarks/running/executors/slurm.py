"""Jobs of a Slurm cluster, submitted by submitit."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from ...cases.base import AnyCase, Output
from .base import Executor, Failure, Work, decode, encode
from .measure import make_ready, measure, open_session

LOGS = "slurm"
_LOOK = {"slurm": 5.0, "local": 0.1}  # seconds between looks at the jobs
_MINUTES = 60
_NUMBERS = ("time", "cpus_per_task", "nodes", "gpus_per_node", "array_parallelism")


def measure_in_job(work: Work, case: AnyCase) -> dict[str, Any]:
    """What a job does: it is a process of its own, in which a case is measured.

    Raises:
        UsageError: a plugin does not load there.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    make_ready(work)
    return encode(measure(case, open_session(work), work.threads))


def _end_with_parent(parent: int) -> None:
    """Slurm ends its jobs; on this machine nobody else does."""
    while os.getppid() == parent:
        time.sleep(_LOOK["local"])
    os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started inside never hears of the terminal's interrupts: this process acts on them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def slurm_options(given: Sequence[str]) -> dict[str, str]:
    """``key=value`` as given on the command line, key -> value.

    Raises:
        UsageError: something else.
    """
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (equals and key and value):
            raise UsageError(f"--slurm-option {text}: expected key=value, such as partition=long or time=120")
        options[key.strip().lstrip("-").replace("-", "_")] = value.strip()
    for key in _NUMBERS:
        if key in options and not options[key].isdecimal():
            what = "whole minutes" if key == "time" else "a whole number"
            raise UsageError(f"--slurm-option {key}={options[key]}: expected {what}")
    if options.get("cluster", "slurm") not in _LOOK:
        raise UsageError(f"--slurm-option cluster={options['cluster']} is not one of {', '.join(_LOOK)}")
    return options


class SlurmExecutor(Executor):
    """One job a case, in job arrays; the file system is taken to be shared, as submitit does.

    Args:
        work: of the run; what submitit writes goes to a folder in the run's, and is deleted at the end.
        jobs: how many at a time; None for as many as the cluster takes.
        options: of sbatch, and ``cluster=local`` for processes of this machine instead, to try things out.

    Raises:
        UsageError: submitit or Slurm is not there, or an option is wrong.
    """

    def __init__(self, work: Work, jobs: int | None, options: Mapping[str, str]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UsageError("--executor slurm needs submitit: pip install 'elbograd[slurm]'") from error
        self._cluster = options.get("cluster", "slurm")
        self._work, self._folder = work, Path(work.folder) / LOGS
        if self._cluster == "slurm":
            if shutil.which("sbatch") is None or shutil.which("srun") is None:
                raise UsageError(
                    "--executor slurm: no sbatch on this machine: run it where jobs are submitted, "
                    "or try it here with --slurm-option cluster=local"
                )
            parameters = _parameters(options, work.threads, jobs)
        else:
            parameters = {"timeout_min": int(options.get("time", _MINUTES))}
        self._kind = submitit.SlurmExecutor if self._cluster == "slurm" else submitit.LocalExecutor
        self._parameters = parameters
        self._executor: Any = None
        self.workers = "Slurm jobs" if self._cluster == "slurm" else "jobs on this machine"
        # The processes of this machine do not queue by themselves.
        self._at_once = None if self._cluster == "slurm" else jobs or 1
        self._waiting: deque[AnyCase] = deque()
        self._jobs: list[tuple[AnyCase, Any]] = []
        self._running: list[AnyCase] = []
        self._keep = False

    def submit(self, case: AnyCase) -> None:
        self._waiting.append(case)

    def outcomes(self) -> Iterator[tuple[AnyCase, Output | Failure]]:
        while self._waiting or self._jobs:
            yield from self._launch()
            ended = [(case, job) for case, job in self._jobs if job.done()]
            self._running = [case for case, job in self._jobs if job.state == "RUNNING"]
            for case, job in ended:
                self._jobs.remove((case, job))
                yield case, self._outcome(job)
            if not ended:
                time.sleep(_LOOK[self._cluster])

    def running(self) -> list[AnyCase]:
        return self._running

    def close(self) -> None:
        for _, job in self._jobs:
            if self._cluster == "slurm":
                job.cancel(check=False)
            else:
                with suppress(ProcessLookupError):
                    os.kill(int(job.job_id), signal.SIGKILL)
        if self._executor is not None and not self._keep:  # else it is another process's, if it is there
            shutil.rmtree(self._folder, ignore_errors=True)

    def _launch(self) -> Iterator[tuple[AnyCase, Failure]]:
        """Submit what is waiting; yields what could not be."""
        room = len(self._waiting) if self._at_once is None else self._at_once - len(self._jobs)
        cases = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if not cases:
            return
        try:
            if self._executor is None:  # not before: it begins by making its folder
                self._executor = self._kind(self._folder / "%j")
                self._executor.update_parameters(**self._parameters)
            with _deaf_to_interrupts():
                jobs = self._submit(cases)
        except Exception as error:  # sbatch says no, in whatever way
            failure = Failure("refused", f"not submitted: {_last_line(error)}")
            yield from ((case, failure) for case in cases)
            return
        self._jobs += zip(cases, jobs, strict=True)

    def _submit(self, cases: Sequence[AnyCase]) -> list[Any]:
        if len(cases) == 1:
            return [self._executor.submit(measure_in_job, self._work, cases[0])]
        with self._executor.batch():
            return [self._executor.submit(measure_in_job, self._work, case) for case in cases]

    def _outcome(self, job: Any) -> Output | Failure:
        from submitit.core.utils import FailedJobError

        try:
            return decode(job.result())
        except FailedJobError as error:
            failure = Failure("raised", _raised(error))
        except Exception:  # UncompletedJobError, or a result that is no pickle
            failure = Failure("vanished", f"job {job.job_id} left no result, its state is {job.state}")
        self._keep = True
        return Failure(failure.kind, f"{failure.reason} (log: {job.paths.stderr})")


def _parameters(options: Mapping[str, str], threads: int, jobs: int | None) -> dict[str, Any]:
    """What submitit knows by name, and the rest as it is for sbatch."""
    import submitit

    known = submitit.SlurmExecutor._valid_parameters()
    values: dict[str, Any] = {"job_name": "elbograd", "time": _MINUTES, "cpus_per_task": threads}
    if jobs is not None:
        values["array_parallelism"] = jobs
    others = {}
    for key, text in options.items():
        if key in known:
            values[key] = int(text) if key in _NUMBERS else text
        elif key != "cluster":
            others[key] = text
    return {**values, "additional_parameters": others} if others else values


def _raised(error: BaseException) -> str:
    """The exception that a job ended with, from the traceback that submitit tells."""
    lines = [line.strip() for line in str(error).splitlines()]
    ends = [line for line in lines if line.partition(":")[0].replace(".", "").isidentifier() and ":" in line]
    return ends[-1] if ends else one_line(error)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
