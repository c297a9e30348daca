"""Printing what would be run, and about how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...estimators.errors import UsageError
from ..cases.base import AnyBenchmark, AnyCase, SharedWork
from ..rows.durations import duration
from ..store import finished_cases
from .executors.choice import Engine
from .forecast import Guess, estimate_seconds
from .plan import Plan
from .threads import computing_threads


def print_plans(plans: Sequence[Plan], engine: Engine, output: Path | None) -> None:
    """Print every case with its time, what is left out with the reason, and the sum.

    Args:
        plans: of one command.
        engine: where the cases would run.
        output: the run folder, whose finished cases would not run again.
    """
    finished = _finished(output)
    todo = [(plan.benchmark, [case for case in plan.cases if case.id not in finished]) for plan in plans]
    times = estimate_seconds(todo, engine.threads)
    for plan in plans:
        for case in plan.cases:
            for line in (*case.kind.details(case), f"{case.title}: {_time(case, times, finished)}"):
                print(f"{case.kind.name}: {line}")
        for case, reason in plan.skipped:
            print(f"{case.kind.name}: {case.title}: skipped, {reason}")
    shared = [work for benchmark, cases in todo for work in _shared(benchmark, cases, engine.threads)]
    print(_sum([case for _, cases in todo for case in cases], times, engine, shared))


def _shared(benchmark: AnyBenchmark, cases: Sequence[AnyCase], threads: int) -> Sequence[SharedWork]:
    """What cases share, printed."""
    with computing_threads(threads):
        found = benchmark.shared_work(cases)
    for work in found:
        known = "time unknown" if work.seconds is None else f"about {duration(work.seconds)}"
        print(f"{benchmark.name}: {work.title}: {known}, at most {duration(work.limit)}")
    return found


def _time(case: AnyCase, times: Mapping[str, Guess], finished: set[str]) -> str:
    if case.id in finished:
        return "done before"
    if case.id not in times:
        return "time unknown"
    seconds, own = times[case.id]
    return f"about {duration(seconds)}" + ("" if own else ", if it is like the others")


def _sum(
    todo: Sequence[AnyCase], times: Mapping[str, Guess], engine: Engine, shared_work: Sequence[SharedWork]
) -> str:
    known = [times[case.id].seconds for case in todo if case.id in times]
    if not known:
        return f"{_cases(len(todo))} to run" + (", time unknown" if todo else "")
    total = f"about {duration(sum(known))} of measuring"
    jobs = engine.jobs_here() if not engine.shared else engine.jobs or 1
    if jobs > 1:
        shared = max(sum(known) / jobs, max(known))
        total += f", {duration(shared)} with {jobs} at a time"
    if seconds := sum(work.seconds or 0.0 for work in shared_work):
        total += f", about {duration(seconds)} of references in each process"
    unknown = len(todo) - len(known)
    others = f"; the time of {_cases(unknown)} is unknown" if unknown else ""
    return (
        f"{_cases(len(todo))} to run: {total}, from quick pilots here{others}. Checkpoints are not counted."
    )


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def _finished(output: Path | None) -> set[str]:
    """The cases that a run folder holds already."""
    if output is None:
        return set()
    try:
        return finished_cases(output)
    except (UsageError, OSError):  # the run will say why
        return set()
