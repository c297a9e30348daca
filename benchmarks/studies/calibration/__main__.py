"""Are the intervals right? How often they hold what is known: a variance, then all else that is printed.

    python -m elbograd.benchmarks.studies.calibration [--quick] [--only PART] [-r NUMBER] [-j JOBS] [-o DIR]

Each repetition is a measurement with a fresh seed, on a linear-Gaussian VAE or a cost in one dimension
whose variance follows from Gauss-Hermite quadrature; every repetition counts, the marked ones too. A cell
passes unless its coverage is outside 92.5–97.5% by more than the study's own noise: each side is a
one-sided binomial test at 1e-3, so that of 50 cells exactly at an edge about one run in 20 fails by
chance. Exempt are cells of which more than half of the repetitions are marked "not enough replicates";
the number they ask for (the median) is then tried instead, in a cell that is not exempt. A cell that runs
to a precision must also keep the bias of stopping below a tenth of that precision (by a test at 1e-3).
Of the other quantities, each with a truth of its own (`everything`), the same is asked, at a fifth of the
repetitions where each takes a whole measurement. The exit status is 1 if a cell does not pass.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import datetime
from itertools import repeat
from pathlib import Path

from ....estimators.errors import UsageError
from ...seeds import derived
from .cells import Cell, cells
from .everything import everything
from .measure import measure
from .outcome import Coverage, Outcome, assess
from .page import HEADER, HEADER_OF_ALL, columns, columns_of_all, line, line_of_all, write
from .truth import true_variance

MOST_REPLICATES = 50_000  # that a cell is given because another asked for them


def study(
    chosen: Sequence[Cell], repetitions: int, pool: Executor, jobs: int, seed: int = 0
) -> list[Outcome]:
    """Run the cells, and those that exempt ones ask for instead."""
    todo, outcomes = list(chosen), []
    followed: set[tuple[str, float | None]] = set()
    for index, cell in enumerate(todo):  # grows while it runs
        first = derived(seed, "calibration", index)
        seeds = range(first, first + 2 * repetitions, 2)  # a measurement uses its seed and the next
        size = math.ceil(repetitions / (4 * jobs))
        parts = pool.map(measure, repeat(cell), [seeds[i : i + size] for i in range(0, repetitions, size)])
        outcome = assess(cell, true_variance(cell), [one for part in parts for one in part])
        outcomes.append(outcome)
        print(line(columns(outcome)), flush=True)
        case = cell.problem, cell.baseline
        if outcome.verdict == "exempt" and case not in followed and outcome.needed <= MOST_REPLICATES:
            followed.add(case)
            todo.append(Cell(*case, replicates=math.ceil(outcome.needed), promised=True))
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.calibration",
        description="How often the 95% intervals of measured variances hold the known truth.",
    )
    parser.add_argument("-r", "--repetitions", type=int, help="of each cell (default 2000; quick: 200)")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("-o", "--output", type=Path, help="folder for the table (default under results/runs)")
    parser.add_argument("--seed", type=int, default=0, help="of the whole study")
    parser.add_argument("--quick", action="store_true", help="a few cells, under a minute")
    parser.add_argument("--only", choices=("variance", "everything"), help="one of the two tables alone")
    options = parser.parse_args(arguments)
    repetitions = options.repetitions or (200 if options.quick else 2000)
    if repetitions < 2 or options.jobs < 1 or options.seed < 0:
        parser.error("--repetitions must be at least 2, --jobs at least 1, --seed not negative")
    folder = options.output or Path("results/runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-calibration"
    try:
        write([], folder)  # a folder that cannot be written is told before the work
        context = multiprocessing.get_context("spawn")
        outcomes: list[Outcome] = []
        others: list[Coverage] = []
        with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
            if options.only != "everything":
                print(line(HEADER), flush=True)
                outcomes = study(cells(options.quick), repetitions, pool, options.jobs, options.seed)
            if options.only != "variance":
                print(line_of_all(HEADER_OF_ALL), flush=True)
                for found in everything(repetitions, pool, options.jobs, options.seed, options.quick):
                    print(line_of_all(columns_of_all(found)), flush=True)
                    others.append(found)
        write(outcomes, folder, others)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    verdicts = [o.verdict for o in outcomes] + [o.verdict for o in others]
    wrong = [verdict for verdict in verdicts if verdict not in ("ok", "exempt")]
    print(f"{len(verdicts)} cells of {repetitions} repetitions, {len(wrong)} wrong; table in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
