"""Running cases and keeping their rows, one process or several."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..estimators.plugins import load_plugin, one_line
from .certification.result import outcome
from .grid import Case
from .plan import Plan
from .progress import CaseProgress
from .store import RunFolder

_HEADLINE = {"variance": "variance", "convergence": "heldout_objective", "certify": "check"}


def run_plan(plan: Plan, folder: RunFolder, *, jobs: int = 1, plugins: Sequence[str] = ()) -> bool:
    """Run every case that is not finished yet; a case that fails leaves a row, the others go on.

    Args:
        plan: what to run.
        folder: where rows go, a case at a time.
        jobs: processes; each computes with one thread when there are several.
        plugins: to load in each process.

    Returns:
        Whether every case is done.
    """
    finished = folder.finished()
    todo = [case for case in plan.cases if case.id not in finished]
    folder.forget({case.id for case in todo})
    skipped = [
        case.row(metric=_HEADLINE[case.benchmark], status="skipped", reason=why)
        for case, why in plan.skipped
        if case.id not in finished
    ]
    folder.append(skipped)
    good = True
    with CaseProgress(len(plan.cases), len(plan.cases) - len(todo)) as progress:
        for case, rows in _results(todo, folder.path, jobs, plugins, progress):
            folder.append(rows)
            good &= not any(r["status"] == "failed" for r in rows)
            progress.finish(case.title, _outcome(case, rows))
    return good


def run_case(case: Case, folder: Path) -> list[dict[str, Any]]:
    """A case's rows; whatever goes wrong in it becomes one failed row."""
    from .execute import execute

    try:
        return execute(case, folder)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        return [case.row(metric=_HEADLINE[case.benchmark], status="failed", reason=reason)]


def _results(
    cases: Sequence[Case], folder: Path, jobs: int, plugins: Sequence[str], progress: CaseProgress
) -> Iterator[tuple[Case, list[dict[str, Any]]]]:
    if jobs == 1:
        for case in cases:
            progress.start(case.title)
            yield case, run_case(case, folder)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker, (tuple(plugins),)) as pool:
        futures = {pool.submit(run_case, case, folder): case for case in cases}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker(plugins: tuple[str, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(plugin)


def _outcome(case: Case, rows: Sequence[dict[str, Any]]) -> str:
    failed = next((r for r in rows if r["status"] == "failed"), None)
    if failed is not None:
        return f"failed: {failed['reason']}"
    if case.benchmark == "certify":
        return outcome(rows)
    metric = _HEADLINE[case.benchmark]
    headline = [r for r in rows if r["metric"] == metric and r["parameter"] == ""]
    final = [r for r in headline if r["step"] == headline[-1]["step"]]  # one a seed
    value = sum(math.nan if r["value"] is None else r["value"] for r in final) / len(final)
    if not math.isfinite(value):
        return str(final[-1]["status"])
    return f"{metric.replace('_', ' ')} {value:.4g}"
