"""One command's work: cases to rows, rows to tables and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..estimators.errors import UsageError
from ..estimators.plugins import load_plugin
from .grid import specifications
from .options import Benchmark, Throughput, at_least
from .store import RunFolder, default_folder

if TYPE_CHECKING:
    import pandas as pd


_TABLE_WIDTH = 80


@dataclass(frozen=True)
class Run:
    """What one command does.

    Attributes:
        benchmarks: in order.
        output: the run folder; None for a dated one.
        jobs: processes.
        plugins: modules or files to import first.
        force: begin the folder anew.
        dry_run: print the cases and stop.
        name: for a dated folder.
    """

    benchmarks: Sequence[Benchmark]
    output: Path | None = None
    jobs: int = 1
    plugins: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    name: str = "run"


def run(request: Run) -> bool:
    """Do what was asked; whether every case is done.

    Raises:
        UsageError: what was asked cannot be done; nothing has been written then.
    """
    from .environment import describe_environment
    from .plan import Plan, make_plan
    from .runner import run_plan

    at_least("--jobs", 1, request.jobs)
    for plugin in request.plugins:
        load_plugin(plugin)
    plans: list[tuple[Benchmark, Plan]] = []
    for options in request.benchmarks:
        chosen = specifications(options.estimator, "estimator")
        plans.append((options, make_plan(options.grid(), chosen)))
    if request.dry_run:
        for _, plan in plans:
            _print_plan(plan)
        return True
    device = request.benchmarks[0].device
    config = {type(options).__name__.lower(): settings_of(options) for options in request.benchmarks}
    folder = RunFolder(
        request.output or default_folder(request.name), config, describe_environment(device), request.force
    )
    if folder.torn:
        what = "a case that was not written whole was dropped, and runs again"
        print(f"{folder.path}: {what}", file=sys.stderr)
    if folder.changed:
        what = f"another environment ({', '.join(folder.changed)})"
        print(f"{folder.path}: earlier rows were measured in {what}: see environment.json", file=sys.stderr)
    print(f"results go to {folder.path}", file=sys.stderr)
    good = True
    for options, plan in plans:
        if isinstance(options, Throughput):
            good &= _run_throughput(options, plan, folder)
        else:
            good &= run_plan(plan, folder, jobs=request.jobs, plugins=request.plugins)
    order = [case.id for _, plan in plans for case in (*(case for case, _ in plan.skipped), *plan.cases)]
    present(folder.finish(order), folder.path)
    return good


def present(rows: pd.DataFrame, folder: Path) -> None:
    """Print the tables of a run, and draw its figures into its folder.

    Raises:
        UsageError: the folder cannot be written.
    """
    from rich.console import Console

    from .tables import terminal_tables
    from .tables.verdicts import failures

    drawn = draw(rows, folder)
    console = Console(width=max(Console().width, _TABLE_WIDTH))  # better wrapped than cut off
    for table in terminal_tables(rows):
        console.print(table)
    for line in failures(rows):
        console.print(f"failed: {line}", markup=False, highlight=False)
    failed = rows[(rows["status"] == "failed") & (rows["benchmark"] != "certify")].drop_duplicates("case")
    for _, row in failed.iterrows():
        console.print(
            f"failed: {row['estimator']} on {row['problem']}: {row['reason']}", markup=False, highlight=False
        )
    print(drawn)


def draw(rows: pd.DataFrame, folder: Path) -> str:
    """Write a run's tables and figures into its folder, and say where they are.

    Raises:
        UsageError: the folder cannot be written.
    """
    from .plots import draw_all
    from .tables import write_tables

    try:
        write_tables(rows, folder / "tables")
        figures = draw_all(rows, folder / "figures")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    pictures = sum(f.suffix == ".png" for f in figures)
    drawn = f"{pictures} figures in {folder / 'figures'}, " if pictures else ""
    return f"{drawn}all tables in {folder / 'tables' / 'tables.md'}"


def _run_throughput(options: Throughput, plan: Any, folder: RunFolder) -> bool:
    from .throughput import ThroughputCase, run_throughput

    finished = folder.finished()
    todo = [case for case in plan.cases if case.id not in finished]
    folder.forget({case.id for case in todo})
    folder.append(
        case.row(metric="steps_per_second", status="skipped", reason=why)
        for case, why in plan.skipped
        if case.id not in finished
    )
    if not todo:
        return True
    described = {
        ThroughputCase(
            id=case.id,
            problem=case.problem,
            estimator=case.estimator,
            num_samples=case.num_samples,
            batch_size=case.batch_size,
            device=case.device,
            dtype=case.dtype,
            mode=case.settings["mode"],
            seed=case.seed,
        ): case
        for case in todo
    }
    code, rows = run_throughput(
        list(described), folder.path, compare=options.compare, seconds=options.seconds
    )
    folder.append(rows)
    return code == 0


def settings_of(options: Benchmark) -> dict[str, Any]:
    """What config.toml says of a benchmark."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}


def _print_plan(plan: Any) -> None:
    for case in plan.cases:
        print(f"{case.benchmark}: {case.title}")
    for case, reason in plan.skipped:
        print(f"{case.benchmark}: {case.title}: skipped, {reason}")
