"""Running cases and keeping their rows: one process writes, whoever computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..cases.base import AnyCase, Output
from ..store import ROWS, RunFolder, read_rows
from ..store.atomic import write_atomically
from .executors.base import Executor, Failure
from .plan import Plan
from .progress import RunProgress
from .unchanged import Seen

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

    Raises:
        KeyboardInterrupt: the user has stopped it; what was found by then is in the folder.
        UsageError: a case met another model or batch than others at what is called the same point.
    """
    todo = begin(plan, folder)
    tries: Counter[str] = Counter()
    with RunProgress(todo, len(plan.cases), executor.running, plan.benchmark.quiet) as progress:
        kept = _Kept(folder, progress, Seen(read_rows(folder.path / ROWS)))
        executor.tell = progress.tell
        for case in todo:
            executor.submit(case)
        for case, outcome in executor.outcomes():
            tries[case.id] += 1
            if isinstance(outcome, Output):
                kept.add(case, outcome)
            elif tries[case.id] <= _worth_trying(outcome, retries):
                progress.again(case, outcome.reason, tries[case.id])
                executor.submit(case)
            else:
                kept.add(case, _failed(case, outcome, tries[case.id]))
    if kept.good and kept.texts and plan.benchmark.text_file is not None:
        # In one step: half of it would pass for the whole.
        write_atomically(folder.path / plan.benchmark.text_file, "\n\n".join(kept.texts) + "\n")
    return kept.good


def begin(plan: Plan, folder: RunFolder) -> list[AnyCase]:
    """The cases not finished yet, whose rows are dropped; the skipped ones get their rows."""
    benchmark = plan.benchmark
    finished = folder.finished()
    if benchmark.text_file is not None:
        (folder.path / benchmark.text_file).unlink(missing_ok=True)  # of an earlier run
        finished = set()
    todo = [case for case in plan.cases if case.id not in finished]
    folder.forget(benchmark.ids_in(todo, read_rows(folder.path / ROWS)))
    folder.append(
        case.row(metric=benchmark.headline, status="skipped", reason=why)
        for case, why in plan.skipped
        if case.id not in finished
    )
    return todo


@dataclass
class _Kept:
    """What has been found so far: rows in the folder, texts, and whether every case is done."""

    folder: RunFolder
    progress: RunProgress
    seen: Seen
    texts: list[str] = field(default_factory=list)
    good: bool = True

    def add(self, case: AnyCase, found: Output) -> None:
        self.seen.check(found.rows)
        self.folder.append(found.rows)
        failure = next((r for r in found.rows if r["status"] == "failed"), None)
        said = case.kind.outcome(found.rows) if failure is None else f"failed: {failure['reason']}"
        failed = failure is not None or not found.rows
        self.progress.finish(case, said, failed)
        self.good &= not failed
        if found.text:
            self.progress.show(found.text)
            self.texts.append(found.text)
        if found.interrupted:
            raise KeyboardInterrupt


def _worth_trying(failure: Failure, retries: int) -> int:
    return {"refused": 0, "raised": min(_RETRIES_OF_EXCEPTIONS, retries), "vanished": retries}[failure.kind]


def _failed(case: AnyCase, failure: Failure, tries: int) -> Output:
    times = f" ({tries} times)" if tries > 1 else ""
    reason = f"{failure.reason}{times}"
    return Output([case.row(metric=case.kind.headline, status="failed", reason=reason)])
