"""Kill runs at random moments, go on, and compare with the run that nobody disturbed: ``python tests/running/kills.py``.

Every run is a process group of its own that gets SIGKILL: the command and its workers, wherever they are.
It goes on, is killed again, and so on until one is let through.
Afterwards the folder must hold the very rows of the undisturbed run, timings aside, in the same order; and
the lines of a case that was finished at some kill, timings included, must be in the end as they were then.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = (
    "elbograd", "variance", "-p", "linear-gaussian", "-r", "50", "-s", "1,2", "--step", "0,5", "--batch-size",
    "8", "-e", "reparameterization", "-e", "score-function", "-e", "sticking-the-landing",
)  # fmt: skip
TIMINGS = ("seconds", "work_normalized_variance")


def start(folder: Path, jobs: int, figures: int | None = None) -> int:
    """Fork a run; torch is imported once, here, and not at every start.

    Args:
        folder: of the run; what it prints goes into a file beside it.
        jobs: processes.
        figures: how many to draw; None for all.
    """
    process = os.fork()
    if process:
        return process
    os.setsid()
    output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from elbograd.benchmarks import plots
    from elbograd.benchmarks.cli import main as cli

    plots.FIGURES = plots.FIGURES[:figures]
    sys.argv = [*COMMAND, "-j", str(jobs), "-o", str(folder)]
    try:
        cli.main()
    except SystemExit as stop:
        os._exit(stop.code)
    finally:
        os._exit(70)


def end(process: int, due: Callable[[], bool]) -> int | None:
    """Kill the group when it is time; the exit status of a run that was done before."""
    while not due():
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return None if code == -signal.SIGKILL else code


def moment(draw: random.Random, folder: Path, whole: float, finished: int, cases: int) -> Callable[[], bool]:
    """When to kill: at any time within half a run, or shortly after some case was written."""
    if finished == cases or draw.random() < 0.3:
        deadline = time.monotonic() + draw.uniform(0, whole / 2)
        return lambda: time.monotonic() > deadline
    after, delay, file = draw.randrange(finished, cases), draw.expovariate(20), folder / "rows.jsonl"

    def due() -> bool:
        if not file.exists() or file.read_bytes().count(b'"row": 1, ') <= after:
            return False
        time.sleep(delay)
        return True

    return due


def check(folder: Path, undisturbed: Path, seen: dict[str, bytes]) -> None:
    """Compare a folder with the undisturbed one; ``seen`` holds the lines of cases once finished."""
    from elbograd.benchmarks import load_results
    from elbograd.benchmarks.store.log import read_log

    def untimed(path):
        rows = load_results(path).assign(run="")
        rows.loc[rows["metric"].isin(TIMINGS), ["value", "ci_low", "ci_high", "n"]] = None
        return rows

    rows, expected = untimed(folder), untimed(undisturbed)
    assert rows.equals(expected), (
        f"{folder}: {rows.compare(expected) if len(rows) == len(expected) else len(rows)}"
    )
    assert untimed(folder / "rows.parquet").equals(expected)
    text = read_log(folder / "rows.jsonl").text
    for case, lines in seen.items():
        assert text[case] == lines, f"{folder}: case {case} was measured twice"
    assert not list(folder.rglob(".unfinished-*"))
    assert "Traceback" not in folder.with_suffix(".log").read_text()
    figures = {f.name for f in (undisturbed / "figures").iterdir()}
    assert {f.name for f in (folder / "figures").iterdir()} == figures


def undisturbed(where: Path, figures: int | None) -> tuple[Path, float]:
    """The run to compare with, in one process, and the seconds it takes."""
    folder, begin = where / "undisturbed", time.monotonic()
    assert end(start(folder, 1, figures), lambda: False) == 0, folder.with_suffix(".log").read_text()
    return folder, time.monotonic() - begin


def kill(kills: int, jobs: int, draw: random.Random, right: Path, whole: float, figures: int | None) -> None:
    """Kill runs so many times, see each to its end, compare, and print a line a run.

    Args:
        kills: in all.
        jobs: processes of each run.
        draw: decides when.
        right: the undisturbed run's folder.
        whole: seconds that it took.
        figures: as in `start`.
    """
    from elbograd.benchmarks.store.log import read_log

    cases, done, runs = len(read_log(right / "rows.jsonl").cases), 0, 0
    while done < kills:
        folder, seen, at, status = right.with_name(f"jobs-{jobs}-run-{runs}"), {}, [], None
        while status is None:
            let_through = done == kills or (len(seen) == cases and draw.random() < 0.5)
            due = (lambda: False) if let_through else moment(draw, folder, whole, len(seen), cases)
            status = end(start(folder, jobs, figures), due)
            if status is None:
                done += 1
                finished = read_log(folder / "rows.jsonl").text
                assert all(finished.get(case) == lines for case, lines in seen.items()), "a case was lost"
                seen |= finished
                at.append(len(seen))
        assert status == 0, folder.with_suffix(".log").read_text()
        check(folder, right, seen)
        runs += 1
        print(f"jobs {jobs}: killed with {at} of {cases} cases finished: the undisturbed rows", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, nargs="+", default=[25, 25], help="for each number of jobs")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--figures", type=int, help="that a run draws; all without")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # One thread, as the workers of several jobs have: then the rows do not depend on the number of jobs.
    os.environ["OMP_NUM_THREADS"] = "1"
    import elbograd.benchmarks.oracles.references
    import elbograd.benchmarks.plots.style
    import elbograd.benchmarks.running.runner
    import elbograd.benchmarks.variance.measure  # noqa: F401 - before the forks

    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        right, whole = undisturbed(Path(folder), given.figures)
        for jobs, kills in zip(given.jobs, given.kills, strict=True):
            kill(kills, jobs, draw, right, whole, given.figures)
    print(f"{sum(given.kills)} kills: nothing lost, doubled or changed")


if __name__ == "__main__":
    main()
