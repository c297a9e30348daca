"""Which executor a run uses, and with what: checked before anything is written."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ....estimators.errors import UsageError
from ...cases.options import at_least, option
from ..threads import cores
from .base import Executor, Work

EXECUTORS = ("local", "dask", "slurm")


@dataclass(frozen=True)
class Engine:
    """What the user said about where and how cases run; the names are those of the command line.

    Attributes:
        jobs: cases at a time; None for one on this machine, and for as many as a cluster takes.
        threads: that one case computes with, wherever it runs, so that numbers are the same everywhere.
        executor: "local", "dask" or "slurm".
        scheduler: address of the Dask scheduler.
        slurm_option: key=value, for sbatch.
        retries: how often a case is begun again whose worker vanished.
        allow_shared_timings: measure seconds where others may be computing too.
    """

    jobs: int | None = option(
        None, "--jobs", "-j", help="Cases at a time: processes of this machine, or Slurm jobs."
    )
    threads: int = option(1, "--threads", help="That a case computes with, the same wherever it runs.")
    executor: str = option("local", "--executor", metavar="NAME", help="local, dask or slurm.")
    scheduler: str | None = option(
        None,
        "--scheduler",
        metavar="ADDRESS",
        help="Of a running Dask scheduler, for --executor dask.",
    )
    slurm_option: tuple[str, ...] = option(
        (),
        "--slurm-option",
        metavar="KEY=VALUE",
        help="Of sbatch, such as partition=long, time=120 (minutes); repeatable. cluster=local: try it here.",
    )
    retries: int = option(2, "--retries", help="How often a case is begun again whose worker vanished.")
    allow_shared_timings: bool = option(
        False,
        "--allow-shared-timings",
        help="Measure seconds on a cluster, where others may be computing too.",
    )

    @property
    def shared(self) -> bool:
        """Whether others compute on the same machines."""
        return self.executor != "local"

    @property
    def timings(self) -> bool:
        """Whether seconds are measured."""
        return not self.shared or self.allow_shared_timings

    def check(self) -> None:
        """Raise UsageError for what cannot be."""
        from .slurm import slurm_options

        if self.executor not in EXECUTORS:
            raise UsageError(f"--executor {self.executor!r} is not one of {', '.join(EXECUTORS)}")
        at_least("--jobs", 1, self.jobs)
        at_least("--threads", 1, self.threads)
        at_least("--retries", 0, self.retries)
        if self.executor == "dask" and self.scheduler is None:
            raise UsageError(
                "--executor dask needs --scheduler ADDRESS, such as tcp://10.0.0.1:8786 "
                "(`dask scheduler` starts one and prints its address)"
            )
        if self.executor == "dask" and self.jobs is not None:
            raise UsageError("--jobs cannot be combined with --executor dask, whose workers decide that")
        if self.executor != "dask" and self.scheduler is not None:
            raise UsageError(f"--scheduler is for --executor dask, not {self.executor}")
        if self.executor != "slurm" and self.slurm_option:
            raise UsageError(f"--slurm-option is for --executor slurm, not {self.executor}")
        slurm_options(self.slurm_option)

    def open(self, work: Work) -> Executor:
        """The executor, ready for cases.

        Raises:
            UsageError: it cannot be had.
        """
        if self.executor == "dask":
            from .dask import DaskExecutor

            assert self.scheduler is not None
            return DaskExecutor(work, self.scheduler)
        if self.executor == "slurm":
            from .slurm import SlurmExecutor, slurm_options

            return SlurmExecutor(work, self.jobs, slurm_options(self.slurm_option))
        jobs = self.jobs_here()
        if self.jobs in (None, 1):
            from .serial import SerialExecutor

            return SerialExecutor(work)
        from .local import LocalExecutor

        return LocalExecutor(work, jobs)

    def jobs_here(self) -> int:
        """As many processes as asked for, but no more than have a core for each thread."""
        jobs, here = self.jobs or 1, cores()
        if jobs * self.threads <= here:
            return jobs
        fewer = min(jobs, max(1, here // self.threads))
        asked = f"--jobs {jobs}" + (f" of {self.threads} threads" if self.threads > 1 else "")
        print(f"{asked}: there are {here} cores here, so {fewer} at a time", file=sys.stderr)
        return fewer
