"""How often certification raises a false alarm: whole runs over right estimators, each under a fresh seed.

    python -m elbograd.benchmarks.studies.false_alarms --runs 200 -j 2 -o FOLDER

A run is what `elbograd certify -e NAME` does: the conformance suite and all oracle problems, at the levels
and with the work of that command. The estimators of the suite, and the settings of them that
`whole_catalogue` compares, take turns. Every run that ends is a line of runs.jsonl, and false-alarms.md is
written anew; the same command goes on where it was stopped. An alarm is a check that fails: of a right
estimator it is false.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import BUILTIN_NAMES
from ..cases.base import AnyCase, Output
from ..cases.certify import Certify
from ..cases.options import at_least
from ..problems.specifications import specifications
from ..rows.certificate import ALARM_RATE
from ..rows.certificates import certificates
from ..running.executors.base import Executor, Failure, Work
from ..running.executors.choice import Engine
from ..seeds import derived
from ..store import default_folder
from ..store.environment import describe_environment
from .whole_catalogue import VARIANTS

_RUNS, _PAGE = "runs.jsonl", "false-alarms.md"
_NICENESS = 10  # a study of hours gives way to other work
_SEED = 1_000_003  # between two studies


@dataclass(frozen=True)
class WholeRun:
    """What one run came to.

    Attributes:
        run: its number.
        seed: of all that was drawn.
        estimator: that was certified.
        verdict: "holds", "fails" or "not shown".
        checks: that ran.
        open: checks that ran without a verdict.
        alarms: checks that failed, a line each.
        bound: of the relative bias, at the worst place; None where none is claimed.
        worst: that place.
        seconds: that all checks took, one after another.
        commit: of the code.
    """

    run: int
    seed: int
    estimator: str
    verdict: str
    checks: int
    open: int
    alarms: tuple[str, ...]
    bound: float | None
    worst: str
    seconds: float
    commit: str | None = None


class Study:
    """The runs of a folder, those that have ended among them.

    Args:
        folder: made where it is not there.
        estimators: specifications, which take turns.
        problems: specifications; none for all that `elbograd certify` runs.
        seed: of the study.

    Raises:
        UsageError: the folder cannot be written, or a line of it cannot be read.
    """

    def __init__(
        self, folder: Path, estimators: Sequence[str], problems: Sequence[str] = (), seed: int = 0
    ) -> None:
        self.folder, self.estimators, self.problems, self._seed = folder, estimators, problems, seed
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _RUNS).open("a"):
                pass
        except OSError as error:
            raise UsageError(f"cannot write {folder}: {error.strerror}") from None
        self.done = _read(folder / _RUNS)
        self._commit = describe_environment("cpu")["commit"]

    def run(self, wanted: range, executor: Executor) -> Iterator[WholeRun]:
        """Those of these runs that have not ended yet, as they end."""
        begun = {one.run for one in self.done}
        waiting: dict[tuple[int, str], _Parts] = {}
        todo = deque(number for number in wanted if number not in begun)

        def begin() -> None:
            number = todo.popleft()
            one = _Parts(number, self._request(number))
            waiting[one.key] = one
            for case in one.cases:
                executor.submit(case)

        for _ in range(min(2, len(todo))):  # no process waits for the last case of a run
            begin()
        for case, outcome in executor.outcomes():
            one = waiting[case.seed, case.estimator]
            if one.take(case, outcome):
                del waiting[one.key]
                yield self._keep(one.finished(self._commit))
                if todo:
                    begin()

    def _request(self, number: int) -> Certify:
        estimator = self.estimators[number % len(self.estimators)]
        seed = derived(_SEED * self._seed, "false alarms", number)
        asked = Certify(estimator=(estimator,), seed=seed)
        return replace(asked, problem=tuple(self.problems)) if self.problems else asked

    def _keep(self, one: WholeRun) -> WholeRun:
        with (self.folder / _RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(one)) + "\n")
        self.done.append(one)
        (self.folder / _PAGE).write_text(page(self.done), encoding="utf-8")
        return one


class _Parts:
    """The cases of a run, and what was found of them so far."""

    def __init__(self, number: int, asked: Certify) -> None:
        self.number, self.cases = number, asked.grid()
        self.key = asked.seed, self.cases[0].estimator
        self._left = {case.id for case in self.cases}
        self._rows: list[dict[str, Any]] = []
        self._broken: list[str] = []

    def take(self, case: AnyCase, outcome: Output | Failure) -> bool:
        """Whether that was the last case."""
        self._left.discard(case.id)
        if isinstance(outcome, Failure):
            self._broken.append(f"{case.title}: {outcome.reason}")
        else:
            self._rows += outcome.rows
        return not self._left

    def finished(self, commit: str | None) -> WholeRun:
        """What the run came to; a case that could not be measured counts as an alarm."""
        seed, name = self.key
        if not self._rows:
            alarms = tuple(self._broken)
            return WholeRun(self.number, seed, name, "fails", 0, 0, alarms, None, "", 0.0, commit)
        (found,) = certificates(pd.DataFrame(self._rows))
        return WholeRun(
            self.number,
            seed,
            name,
            found.word,
            found.ran,
            len(found.open_questions),
            (*found.failures, *self._broken),
            found.bias_bound if found.unbiased else None,
            "" if found.worst is None else found.worst.place,
            round(found.seconds, 1),
            commit,
        )


def _read(path: Path) -> list[WholeRun]:
    """The runs that have ended; a line that was not written whole is as if it were not there."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    try:
        values = [json.loads(line) for line in lines]
        return [WholeRun(**{**value, "alarms": tuple(value["alarms"])}) for value in values]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path} is not a list of runs: remove it, or choose another folder") from None


def summary(runs: Sequence[WholeRun]) -> str:
    """Rates of alarms with their 95% intervals, in a sentence."""
    alarmed, checks = sum(bool(one.alarms) for one in runs), sum(one.checks for one in runs)
    alarms = sum(len(one.alarms) for one in runs)
    return (
        f"{alarmed} of {len(runs):,} whole runs raised an alarm ({_rate(alarmed, len(runs))} a run; claimed "
        f"is at most {ALARM_RATE:g}), {alarms} of {checks:,} checks ({_rate(alarms, checks)} a check)."
    )


def page(runs: Sequence[WholeRun]) -> str:
    """The runs, an estimator a line, as Markdown."""
    frame = pd.DataFrame([asdict(one) for one in sorted(runs, key=lambda one: one.run)])
    lines = ["| estimator | runs | alarms | holds | not shown | checks a run | worst bound | seconds |"]
    lines.append("|---|" + "---:|" * 7)
    for name, part in frame.groupby("estimator", sort=False):
        bounds = part["bound"].dropna()
        cells = [
            f"`{name}`",
            str(len(part)),
            str(int(part["alarms"].map(len).sum())),
            *(str(int((part["verdict"] == word).sum())) for word in ("holds", "not shown")),
            f"{part['checks'].median():.0f}",
            "" if bounds.empty else f"{100 * bounds.max():.2g}%",
            f"{part['seconds'].median():.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    alarms = [f"- run {one.run}, `{one.estimator}`: {line}" for one in runs for line in one.alarms]
    commits = ", ".join(dict.fromkeys(str(one.commit) for one in runs))
    return "\n".join(
        [
            "# False alarms of whole runs over right estimators",
            "",
            "Each run is `elbograd certify -e NAME` under a seed of its own: the conformance suite and all "
            "oracle problems. In brackets 95% intervals (Clopper and Pearson). *Not shown* is no alarm: a "
            "check without a verdict, or a bound that was not reached. Checks a run, and the seconds that "
            f"they took one after another, are medians. Made by `tox -e false-alarms` at commit {commits}.",
            "",
            summary(runs),
            "",
            *(alarms or ["No alarm."]),
            "",
            *lines,
            "",
        ]
    )


def _rate(count: int, of: int) -> str:
    if not of:
        return "none ran"
    ends = stats.binomtest(count, of).proportion_ci(0.95)
    return f"{count / of:.2g} [{ends.low:.2g}, {ends.high:.2g}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.false_alarms",
        description="How often certification raises an alarm over right estimators: whole runs.",
    )
    parser.add_argument("-r", "--runs", type=int, default=200)
    parser.add_argument("--offset", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=0, help="of the whole study")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("-o", "--output", type=Path, help="folder (default under results/runs)")
    parser.add_argument("-e", "--estimator", action="append", help="in place of the whole catalogue")
    parser.add_argument("-p", "--problem", action="append", help="in place of all oracle problems")
    given = parser.parse_args(arguments)
    try:
        at_least("--runs", 1, given.runs)
        at_least("--offset", 0, given.offset)
        at_least("--seed", 0, given.seed)
        at_least("--jobs", 1, given.jobs)
        estimators = specifications(tuple(given.estimator or (*BUILTIN_NAMES, *VARIANTS)), "estimator")
        problems = specifications(tuple(given.problem or ()), "problem")
        folder = given.output or default_folder("false-alarms")
        study = Study(folder, estimators, problems, given.seed)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.nice(_NICENESS)
    wanted = range(given.offset, given.offset + given.runs)
    work = Work(str(folder.resolve()), str(Path.cwd()), path=tuple(filter(None, sys.path)))
    try:
        with Engine(jobs=given.jobs).open(work) as executor:
            for one in study.run(wanted, executor):
                print(_line(one), flush=True)
    except KeyboardInterrupt:
        print(f"stopped; the same command with -o {folder} goes on from here", file=sys.stderr)
        return 130
    if study.done:
        print(f"{summary(study.done)} See {folder / _PAGE}")
    return 1 if any(one.alarms for one in study.done) else 0


def _line(one: WholeRun) -> str:
    bound = "" if one.bound is None else f", bias ≤ {100 * one.bound:.2g}%"
    told = "".join(f"\n    {line}" for line in one.alarms)
    return (
        f"run {one.run}: {one.estimator} {one.verdict}{bound}, {one.checks} checks, {one.seconds:.0f} s{told}"
    )


if __name__ == "__main__":
    sys.exit(main())
