"""`elbograd advise`: the problems of one command, its run folder, what it prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import load_plugin
from ..cases.grid import Case, specifications
from ..cases.options import Advise
from ..report.present import draw
from ..running.suite import Run, settings_of
from ..store import ROWS, RunFolder, default_folder, load_results
from ..store.atomic import write_atomically
from ..store.environment import describe_environment
from .advise import advise, prepare_problem
from .candidates import find_candidates
from .progress import AdviceProgress
from .result import Advice

TEXT = "advice.txt"


def run_advice(request: Run) -> bool:
    """Measure, rank and print; whether there was something to rank, of every problem.

    An interrupt ends it like any command, once what was measured by then is printed and written. A folder
    that holds the same command's finished advice prints it again; an interrupted one is begun anew, for
    timings do not go on where they stopped.

    Raises:
        UsageError: what was asked cannot be done; nothing has been written then.
    """
    (options,) = request.benchmarks
    assert isinstance(options, Advise)
    options.check()
    for plugin in request.plugins:
        load_plugin(plugin)
    problems = specifications(options.problem, "problem")
    estimators = specifications(options.estimator, "estimator") or None
    planned = [_plan(options, problem, estimators) for problem in problems]
    if request.dry_run:
        for lines in planned:
            print("\n".join(lines))
        return True
    folder = RunFolder(
        request.output or default_folder(request.name),
        {"advise": settings_of(options)},
        describe_environment(options.device),
        request.force,
    )
    text = folder.path / TEXT
    if text.exists() and not request.force:
        print(text.read_text(encoding="utf-8"))
        return True
    print(f"results go to {folder.path}", file=sys.stderr)
    text.unlink(missing_ok=True)  # of an earlier run, that --force replaces
    folder.forget(_earlier(folder))
    found: list[Advice] = []
    for problem in problems:
        with AdviceProgress() as progress:
            found.append(
                advise(
                    problem, estimators, **_arguments(options), budget=options.budget, on_progress=progress
                )
            )
        folder.append(_complete(options, problem, found[-1]))
        print(found[-1], end="\n\n", flush=True)
        if found[-1].interrupted:
            break
    rows = folder.finish()
    print(draw(rows, folder.path))
    if found[-1].interrupted:
        raise KeyboardInterrupt
    if not all(advice.rankings for advice in found):
        return False
    write_atomically(text, "\n\n".join(map(str, found)) + "\n")  # half of it would pass for the advice
    return True


def _earlier(folder: RunFolder) -> set[str]:
    """Cases of an earlier advice; what else the folder holds stays."""
    if not (folder.path / ROWS).exists():
        return set()
    rows = load_results(folder.path)
    return set(rows.loc[rows["parameters"].str.contains('"command": "advise"', regex=False), "case"])


def _arguments(options: Advise) -> dict[str, Any]:
    return {
        "num_samples": options.num_samples,
        "train_steps": options.train_steps,
        "batch_size": options.batch_sizes[0],
        "route": options.route,
        "seed": options.seed,
        "device": options.device,
        "dtype": options.dtype,
    }


def _plan(options: Advise, problem: str, estimators: list[str] | None) -> list[str]:
    """What would be measured, a line each; complains of what cannot be."""
    arguments = _arguments(options)
    sizes = arguments["num_samples"]
    loaded, x = prepare_problem(problem, None, budget=options.budget, **arguments)
    try:
        candidates, left_out = find_candidates(loaded, x, estimators, sizes)
    except UsageError as error:
        raise UsageError(f"problem {problem}: {error}") from error
    points = "" if not options.train_steps else f" at steps 0 and {options.train_steps}"
    lines = [
        f"advise: {c.label}, S = {', '.join(map(str, c.sizes))}, {problem}{points} ({c.objective})"
        for c in candidates
    ]
    return lines + [f"advise: {label}, {problem}: left out, {reason}" for label, reason in left_out]


def _complete(options: Advise, problem: str, advice: Advice) -> Iterable[dict[str, Any]]:
    """The rows, and of each what identifies its case."""
    for one in advice.rows():
        settings = {"step": one["step"], "command": "advise", "budget": options.budget}
        case = Case(
            "variance",
            problem,
            one["estimator"],
            one["num_samples"],
            one["batch_size"],
            options.seed,
            options.device,
            options.dtype,
            settings,
        )
        yield from case.complete([{**one, "seed": options.seed}])
