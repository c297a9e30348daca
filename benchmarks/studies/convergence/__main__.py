"""The study of convergence: ``python -m elbograd.benchmarks.studies.convergence -o FOLDER``.

Each workload is a run of its own in FOLDER, with variances at a checkpoint and fairly tuned training; the
same command goes on where it was stopped. convergence.md in FOLDER is written anew after each.
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
        if given.dry_run:
            for workload in wanted:
                print(f"{workload.name}:")
                _run(workload, Path(workload.name), given)
            return 0
        folder = given.output or default_folder("convergence-study")
        good = True
        for workload in wanted:
            print(f"{workload.name} ({workload.problem})", file=sys.stderr)
            good &= _run(workload, folder / workload.name, given)
            write_atomically(folder / _PAGE, _page(folder))
    except UsageError as error:
        print(f"convergence study: {error}", file=sys.stderr)
        return 2
    print(folder / _PAGE)
    return 0 if good else 1


def _run(workload: Workload, folder: Path, given: argparse.Namespace) -> bool:
    engine = Engine(jobs=given.jobs)
    asked = workload.asked(given.quick)
    return run(Run(asked, folder, engine, dry_run=given.dry_run, name="convergence-study"))


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
