"""The level of certification's tests, and the coverage of its bias bounds, by simulation.

    python -m elbograd.benchmarks.studies.certification_coverage [-r LOOKS] [--seconds CELL] [-o FOLDER]

See `level` and `coverage`. The tables are written after every cell, so that it can be stopped at any time.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ....estimators.errors import UsageError
from ...store import default_folder
from .coverage import BIAS_CELLS, Coverage, coverage
from .level import LEVEL_CELLS, Level, levels
from .page import coverage_cells, level_cells, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.certification_coverage",
        description="The level of certification's tests, and the coverage of its bias bounds.",
    )
    parser.add_argument("-r", "--repetitions", type=int, default=2000, help="looks; a tenth as many runs")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of a cell, at most")
    parser.add_argument("--only", choices=("level", "coverage"), help="one of the two")
    parser.add_argument("--seed", type=int, default=0, help="of the study")
    parser.add_argument("-o", "--output", type=Path, help="folder (default under results/runs)")
    given = parser.parse_args(arguments)
    if given.repetitions < 1 or given.seed < 0 or not given.seconds > 0:
        parser.error("--repetitions and --seconds must be positive, --seed not negative")
    torch.set_num_threads(1)
    found: list[Level] = []
    covered: list[Coverage] = []
    try:
        folder = given.output or default_folder("certification-coverage")
        write(found, covered, folder)  # a folder that cannot be written is told before the work
        for cell in LEVEL_CELLS if given.only != "coverage" else ():
            found += levels(cell, given.repetitions, given.seconds, given.seed)
            print(*("; ".join(level_cells(one)) for one in found if one.cell == cell), sep="\n", flush=True)
            write(found, covered, folder)
        for case in BIAS_CELLS if given.only != "level" else ():
            covered.append(coverage(case, math.ceil(given.repetitions / 10), given.seconds, given.seed))
            print("; ".join(coverage_cells(covered[-1])), flush=True)
            write(found, covered, folder)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"tables in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
