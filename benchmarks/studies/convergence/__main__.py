"""The study of convergence: ``python -m elbograd.benchmarks.studies.convergence -o FOLDER``.

Each workload is a run of its own in FOLDER, with variances at a checkpoint and fairly tuned training; the
same command goes on where it was stopped. convergence.md in FOLDER is written anew after each. A workload
that cannot be run here, as where its data are not to be had, is left out with a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ....estimators.errors import UsageError
from ...running.executors.choice import Engine
from ...running.suite import Run, run
from ...store import default_folder
from ...store.atomic import write_atomically
from ...store.loading import load_results
from .page import page
from .workloads import WORKLOADS, Workload

_PAGE = "convergence.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; the exit status."""
    given = _parsed(arguments)
    try:
        wanted = _wanted(given.only)
        folder = given.output or default_folder("convergence-study")
        ended = [_run(workload, folder, given) for workload in wanted]
        if all(one is None for one in ended):
            return 2
        if given.dry_run:
            return 0
        write_atomically(folder / _PAGE, _page(folder))
    except UsageError as error:
        print(f"convergence study: {error}", file=sys.stderr)
        return 2
    print(folder / _PAGE)
    return 1 if False in ended else 0


def _run(workload: Workload, folder: Path, given: argparse.Namespace) -> bool | None:
    """Whether all of it is done; None where it cannot be run here."""
    print(f"{workload.name} ({workload.problem}):", file=sys.stdout if given.dry_run else sys.stderr)
    asked, here = workload.asked(given.quick), folder / workload.name
    try:
        good = run(Run(asked, here, Engine(jobs=given.jobs), dry_run=given.dry_run, name="convergence-study"))
    except UsageError as error:
        print(f"{workload.name}: left out: {error}", file=sys.stderr)
        return None
    if not given.dry_run:
        write_atomically(folder / _PAGE, _page(folder))
    return good


def _page(folder: Path) -> str:
    there = [one.name for one in WORKLOADS if (folder / one.name / "rows.jsonl").exists()]
    return page({name: load_results(folder / name) for name in there})


def _wanted(names: Sequence[str]) -> list[Workload]:
    known = {one.name: one for one in WORKLOADS}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown workload {name!r}: choose from {', '.join(known)}")
    return [known[name] for name in names] or list(WORKLOADS)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.convergence", description=__doc__
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where it goes, or goes on")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a workload; repeatable")
    parser.add_argument("-j", "--jobs", type=int, default=None, metavar="N", help="cases at a time")
    parser.add_argument("--quick", action="store_true", help="a look whether everything works")
    parser.add_argument("--dry-run", action="store_true", help="print the cases with their times")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
