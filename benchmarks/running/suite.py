"""One command's work: cases to rows, rows to tables and figures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import load_plugin
from ...estimators.plugins.specification import parse, split_place
from ..cases.base import AnyBenchmark, AnyCase, settings_of
from ..rows.schema import NOT_TIMED
from ..store import RunFolder, default_folder
from ..store.log import DAMAGED
from .executors.base import Executor, Work
from .executors.choice import Engine
from .unchanged import check_unchanged, file_hashes

if TYPE_CHECKING:
    import pandas as pd

    from .plan import Plan


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

    benchmarks: Sequence[AnyBenchmark]
    output: Path | None = None
    engine: Engine = field(default_factory=Engine)
    plugins: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    name: str = "run"


def run(request: Run) -> bool:
    """Do what was asked; whether every case is done and no estimator's mean is wrong.

    Raises:
        UsageError: what was asked cannot be done; nothing has been written then.
        KeyboardInterrupt: the user has stopped what cannot go on later; what was found is in the folder.
    """
    from ..rows.bias import counted
    from .plan import make_plan

    request.engine.check()
    for plugin in request.plugins:
        load_plugin(plugin)
    plans = [make_plan(benchmark) for benchmark in request.benchmarks]
    if request.dry_run:
        from .dry_run import print_plans

        print_plans(plans, request.engine, request.output)
        return True
    path = request.output or default_folder(request.name)
    work = _work(request, plans, path)
    files = file_hashes(work.sources)
    if not request.force:
        check_unchanged(path, [case for plan in plans for case in plan.cases], files)
    with _open(request, work, path) as executor:
        folder = _folder(request, path, files)
        if (text := _finished_text(request, path)) is not None:
            print(text)
            return True
        _announce(folder)
        if executor.workers and not all(plan.benchmark.alone for plan in plans):
            print(f"cases run on {executor.workers}", file=sys.stderr)
        stopped = good = False
        try:
            good = _run_plans(request.engine, plans, folder, executor, work)
        except KeyboardInterrupt:
            if not _are_texts(request):
                again = f"the same command with -o {shlex.quote(str(folder.path))} goes on from here"
                print(f"\nelbograd: stopped; finished cases are kept, {again}", file=sys.stderr)
                raise SystemExit(_INTERRUPTED) from None
            stopped = True
    rows = folder.finish([id for plan in plans for id in plan.order])
    _show(rows, folder.path, page=len(plans) > 1, texts=_are_texts(request))
    if stopped:
        raise KeyboardInterrupt
    return good and not counted(rows)[1]


def _folder(request: Run, path: Path, files: dict[str, str]) -> RunFolder:
    from ..store.environment import describe_environment

    config = {asked.name: settings_of(asked) for asked in request.benchmarks}
    environment = describe_environment(request.benchmarks[0].device)
    environment |= {"case_threads": request.engine.threads} | ({"files": files} if files else {})
    return RunFolder(path, config, environment, request.force)


def _are_texts(request: Run) -> bool:
    """Whether what is asked for is read as a text."""
    return all(asked.text_file is not None for asked in request.benchmarks)


def _finished_text(request: Run, folder: Path) -> str | None:
    """The texts that the same command has left in the folder; None where it is still to be run."""
    files = [folder / asked.text_file for asked in request.benchmarks if asked.text_file is not None]
    if request.force or not _are_texts(request) or not all(file.exists() for file in files):
        return None
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def _show(rows: pd.DataFrame, folder: Path, page: bool, texts: bool) -> None:
    """The tables and figures of the rows, and the page where there is enough to be read as a whole.

    Args:
        rows: of the run.
        folder: of the run.
        page: write the report, too.
        texts: what people read has been printed already, in place of tables.
    """
    from ..report.command import write_page
    from ..report.present import draw, present
    from ..report.runs import load_runs

    if texts:
        print(draw(rows, folder))
    else:
        present(rows, folder)
    if page:
        write_page(load_runs([folder]), folder)


def _open(request: Run, work: Work, path: Path) -> Executor:
    """The executor; where it cannot be had, nothing stays of a folder made for this run."""
    try:
        return request.engine.open(work)
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
    engine: Engine, plans: Sequence[Plan], folder: RunFolder, executor: Executor, work: Work
) -> bool:
    """Run all cases; whether every one is done."""
    from .executors.together import TogetherExecutor
    from .runner import run_plan

    if not engine.timings:
        print(f"{NOT_TIMED} (--allow-shared-timings measures them)", file=sys.stderr)
    good = True
    for plan in plans:
        if not plan.benchmark.alone:
            good &= run_plan(plan, folder, executor, retries=engine.retries)
        elif engine.timings:
            good &= run_plan(plan, folder, TogetherExecutor(plan.benchmark, work))
        else:
            print(f"{plan.benchmark.name}: left out, it is nothing but timings", file=sys.stderr)
    return good


def _work(request: Run, plans: Sequence[Plan], path: Path) -> Work:
    """What every worker is told."""
    engine = request.engine
    cases = [case for plan in plans if not plan.benchmark.alone for case in plan.cases]
    return Work(
        folder=str(path.resolve()),
        directory=str(Path.cwd()),
        plugins=request.plugins,
        sources=_sources(cases, request.plugins),
        # A Dask worker is an installation of its own; processes here and jobs are of this one.
        path=() if engine.executor == "dask" else tuple(filter(None, sys.path)),
        threads=engine.threads,
        timings=engine.timings,
    )


def _sources(cases: Sequence[AnyCase], plugins: Sequence[str]) -> dict[str, str]:
    """The text of every file that cases or plugins name."""
    named = [name for case in cases for name in (case.estimator, case.problem) if name]
    places = {split_place(parse(name).name)[0] for name in named} | set(plugins)
    files = sorted(place for place in places if place.endswith(".py"))
    return {place: Path(place).expanduser().read_text(encoding="utf-8") for place in files}
