"""Running cases and keeping their rows: one process writes, whoever computes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..cases.grid import Case
from ..rows.certificate import outcome
from ..store import RunFolder
from .executors.base import Executor, Failure, Rows
from .plan import Plan
from .progress import CaseProgress

HEADLINE = {
    "variance": "variance",
    "convergence": "heldout_objective",
    "certify": "check",
    "throughput": "steps_per_second",
}
_RETRIES_OF_EXCEPTIONS = 1  # draws are the same each time: what helps is that a machine may not be


def run_plan(plan: Plan, folder: RunFolder, executor: Executor, *, retries: int = 2) -> bool:
    """Run every case that is not finished yet; a case that fails leaves a row, the others go on.

    Args:
        plan: what to run.
        folder: where rows go, a case at a time.
        executor: where cases run.
        retries: how often a case is begun again whose worker vanished; one that raised an exception is
            begun again once at most, one that was refused never.

    Returns:
        Whether every case is done.
    """
    todo = begin(plan, folder)
    good = True
    tries: Counter[str] = Counter()
    with CaseProgress(todo, len(plan.cases), executor.running) as progress:
        for case in todo:
            executor.submit(case)
        for case, result in executor.outcomes():
            tries[case.id] += 1
            if isinstance(result, Failure) and tries[case.id] <= _worth_trying(result, retries):
                progress.again(case, result.reason, tries[case.id])
                executor.submit(case)
                continue
            rows = _failed(case, result, tries[case.id]) if isinstance(result, Failure) else result
            folder.append(rows)
            failed = any(r["status"] == "failed" for r in rows)
            good &= not failed
            progress.finish(case, _outcome(case, rows), failed)
    return good


def begin(plan: Plan, folder: RunFolder) -> list[Case]:
    """The cases not finished yet, whose rows are dropped; the skipped ones get their rows."""
    finished = folder.finished()
    todo = [case for case in plan.cases if case.id not in finished]
    folder.forget({case.id for case in todo})
    folder.append(
        case.row(metric=HEADLINE[case.benchmark], status="skipped", reason=why)
        for case, why in plan.skipped
        if case.id not in finished
    )
    return todo


def _worth_trying(failure: Failure, retries: int) -> int:
    return {"refused": 0, "raised": min(_RETRIES_OF_EXCEPTIONS, retries), "vanished": retries}[failure.kind]


def _failed(case: Case, failure: Failure, tries: int) -> Rows:
    times = f" ({tries} times)" if tries > 1 else ""
    reason = f"{failure.reason}{times}"
    return [case.row(metric=HEADLINE[case.benchmark], status="failed", reason=reason)]


def _outcome(case: Case, rows: Sequence[dict[str, Any]]) -> str:
    failed = next((r for r in rows if r["status"] == "failed"), None)
    if failed is not None:
        return f"failed: {failed['reason']}"
    if case.benchmark == "certify":
        return outcome(rows)
    metric = HEADLINE[case.benchmark]
    headline = [r for r in rows if r["metric"] == metric and r["parameter"] == ""]
    final = [r for r in headline if r["step"] == headline[-1]["step"]]  # one a seed
    value = sum(math.nan if r["value"] is None else r["value"] for r in final) / len(final)
    if not math.isfinite(value):
        return str(final[-1]["status"])
    return f"{metric.replace('_', ' ')} {value:.4g}"
