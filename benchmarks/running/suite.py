"""One command's work: cases to rows, rows to tables and figures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import load_plugin
from ...estimators.plugins.specification import parse
from ..cases.grid import Case, specifications
from ..cases.options import Benchmark, Throughput
from ..rows.schema import NOT_TIMED
from ..store import RunFolder, default_folder
from ..store.log import DAMAGED
from .executors.base import Executor, Work
from .executors.choice import Engine

if TYPE_CHECKING:
    import pandas as pd

    from .plan import Plan


_NO_TIMINGS = "pytest-benchmark gave no timings"
_INTERRUPTED = 130  # the exit status of a command that was interrupted


@dataclass(frozen=True)
class Run:
    """What one command does.

    Attributes:
        benchmarks: in order.
        output: the run folder; None for a dated one.
        engine: where cases run.
        plugins: modules or files to import first.
        force: begin the folder anew.
        dry_run: print the cases and stop.
        name: for a dated folder.
    """

    benchmarks: Sequence[Benchmark]
    output: Path | None = None
    engine: Engine = field(default_factory=Engine)
    plugins: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    name: str = "run"


def run(request: Run) -> bool:
    """Do what was asked; whether every case is done.

    Raises:
        UsageError: what was asked cannot be done; nothing has been written then.
    """
    from ..store.environment import describe_environment
    from .plan import make_plan

    request.engine.check()
    for plugin in request.plugins:
        load_plugin(plugin)
    plans: list[tuple[Benchmark, Plan]] = []
    for options in request.benchmarks:
        chosen = specifications(options.estimator, "estimator")
        plans.append((options, make_plan(options.grid(), chosen)))
    if request.dry_run:
        from .dry_run import print_plans

        print_plans(plans, request.engine, request.output)
        return True
    device = request.benchmarks[0].device
    config = {type(options).__name__.lower(): settings_of(options) for options in request.benchmarks}
    environment = describe_environment(device) | {"case_threads": request.engine.threads}
    path = request.output or default_folder(request.name)
    cases = [case for options, plan in plans if not isinstance(options, Throughput) for case in plan.cases]
    with _open(request, cases, path) as executor:
        folder = RunFolder(path, config, environment, request.force)
        _announce(folder)
        if cases and executor.workers:
            print(f"cases run on {executor.workers}", file=sys.stderr)
        try:
            good = _run_plans(request.engine, plans, folder, executor)
        except KeyboardInterrupt:
            again = f"the same command with -o {shlex.quote(str(folder.path))} goes on from here"
            print(f"\nelbograd: stopped; finished cases are kept, {again}", file=sys.stderr)
            raise SystemExit(_INTERRUPTED) from None
    order = [case.id for _, plan in plans for case in (*(case for case, _ in plan.skipped), *plan.cases)]
    _show(folder.finish(order), folder.path, page=len(request.benchmarks) > 1)
    return good


def _show(rows: pd.DataFrame, folder: Path, page: bool) -> None:
    """The tables and figures of the rows, and the page where there is enough to be read as a whole."""
    from ..report.command import write_page
    from ..report.present import present
    from ..report.runs import load_runs

    present(rows, folder)
    if page:
        write_page(load_runs([folder]), folder)


def _open(request: Run, cases: Sequence[Case], path: Path) -> Executor:
    """The executor; where it cannot be had, nothing stays of a folder made for this run."""
    try:
        return request.engine.open(_work(request, cases, path))
    except UsageError:
        if request.output is None:
            path.rmdir()
        raise


def _announce(folder: RunFolder) -> None:
    """Say on stderr where results go, and what is noteworthy about results that are there."""
    if folder.damaged:
        lines = "a damaged line was" if folder.damaged == 1 else f"{folder.damaged} damaged lines were"
        print(f"{folder.path}: {lines} moved to {DAMAGED}; what is missing runs again", file=sys.stderr)
    if folder.torn:
        what = "a case that was not written whole was dropped, and runs again"
        print(f"{folder.path}: {what}", file=sys.stderr)
    if folder.changed:
        what = f"another environment ({', '.join(folder.changed)})"
        print(f"{folder.path}: earlier rows were measured in {what}: see environment.json", file=sys.stderr)
    print(f"results go to {folder.path}", file=sys.stderr)


def _run_plans(
    engine: Engine, plans: Sequence[tuple[Benchmark, Plan]], folder: RunFolder, executor: Executor
) -> bool:
    """Run all cases; whether every one is done."""
    from .runner import run_plan

    if not engine.timings:
        print(f"{NOT_TIMED} (--allow-shared-timings measures them)", file=sys.stderr)
    good = True
    for options, plan in plans:
        if not isinstance(options, Throughput):
            good &= run_plan(plan, folder, executor, retries=engine.retries)
        elif engine.timings:
            good &= _run_throughput(options, plan, folder)
        else:
            print("throughput: left out, it is nothing but timings", file=sys.stderr)
    return good


def _work(request: Run, cases: Sequence[Case], path: Path) -> Work:
    """What every worker is told."""
    engine = request.engine
    named = [name for case in cases for name in (case.estimator, case.problem) if name]
    places = {parse(name).name.partition(":")[0] for name in named} | set(request.plugins)
    files = sorted(place for place in places if place.endswith(".py"))
    return Work(
        folder=str(path.resolve()),
        directory=str(Path.cwd()),
        plugins=request.plugins,
        sources={place: Path(place).expanduser().read_text(encoding="utf-8") for place in files},
        # A Dask worker is an installation of its own; processes here and jobs are of this one.
        path=() if engine.executor == "dask" else tuple(filter(None, sys.path)),
        threads=engine.threads,
        timings=engine.timings,
    )


def _run_throughput(options: Throughput, plan: Plan, folder: RunFolder) -> bool:
    from ..throughput.measure import ThroughputCase, run_throughput
    from .runner import HEADLINE, begin

    todo = begin(plan, folder)
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
    timed = {r["case"] for r in rows}
    # All are lost where a plugin of pytest disables benchmarks.
    lost = [case for case in todo if case.id not in timed]
    folder.append(rows)
    folder.append(c.row(metric=HEADLINE["throughput"], status="failed", reason=_NO_TIMINGS) for c in lost)
    return code == 0 and not lost


def settings_of(options: Benchmark) -> dict[str, Any]:
    """What config.toml says of a benchmark."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}
