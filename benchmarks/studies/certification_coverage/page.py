"""The study's tables: on the terminal, as a page and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from ....estimators.errors import UsageError
from ....estimators.testing.mean_test import MAX_SKEW, SCREEN_LEVEL
from .coverage import BiasCell, Coverage
from .level import LEVELS, Level, LevelCell

_LEVEL_HEADER = (
    "noise", "case", "claim", "n", "looks", "means", "too skewed", "at 1e-2", "at 1e-3", "at 5e-5",
    "alarms",
)  # fmt: skip
_COVERAGE_HEADER = ("case", "bias", "runs", "bound too low", "floor too high", "median bound", "found wrong")


_ABOUT_LEVEL = f"""# The level of certification's tests, and the coverage of its bounds

Right estimators, looked at over and over with as few draws as a look has at least: how many of the means that
are judged pass the quantile of each one-sided level, over how many should (both signs; counts in brackets, of
means that may go together), and how many looks raise an alarm that the next look has to confirm, over 1e-3 of
the looks. *Too skewed* are means without a verdict (|g| > {MAX_SKEW}); of θ *n* is that of groups of
estimates. Means that features explain to rounding are left out. Made by `tox -e certification-coverage`.
"""
_ABOUT_COVERAGE = """
Estimators of known relative bias, certified until the bound is within 2% or 260,000 evaluations are spent:
how often the bound (one-sided 99%, one of up to seven looks) was below that bias, by more than a millionth
of it, and the lower end above it.
"""


def page(found: Sequence[Level], covered: Sequence[Coverage]) -> str:
    """Both tables, as Markdown."""
    level = _markdown(_LEVEL_HEADER, [level_cells(one) for one in found])
    coverage = _markdown(_COVERAGE_HEADER, [coverage_cells(one) for one in covered])
    return "\n".join([_ABOUT_LEVEL, *level, _ABOUT_COVERAGE, *coverage, ""])


def level_cells(one: Level) -> list[str]:
    """A line of the first table."""
    cell = one.cell
    ratios = [_over(count, 2 * tail * one.judged) for count, tail in zip(one.above, LEVELS, strict=True)]
    where = f"{cell.estimator}, {cell.problem} at {cell.point}, S = {cell.num_samples}, B = {cell.batch_size}"
    skewed = f"{100 * (1 - one.judged / one.means):.1f}%"
    sizes = [f"{number:,}" for number in (one.draws, one.looks, one.means)]
    alarms = _over(one.screens, SCREEN_LEVEL * one.looks)
    return [cell.family, where, one.claim, *sizes, skewed, *ratios, alarms]


def _over(count: int, expected: float) -> str:
    if not expected:
        return ""
    return f"{count / expected:.2f} ({count} of {expected:.1f})"


def coverage_cells(one: Coverage) -> list[str]:
    """A line of the second table."""
    cell = one.cell
    where = f"{cell.estimator}, {cell.problem} at {cell.point}, S = {cell.num_samples}"
    what = f"{100 * one.truth:.3g}%" + (" (a vector)" if cell.shift else "")
    counts = (one.repetitions, one.below, one.above)
    return [where, what, *map(str, counts), f"{100 * one.bound:.3g}%", str(one.failed)]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (header, ("---",) * len(header), *rows):
        yield f"| {' | '.join(row)} |"


def write(found: Sequence[Level], covered: Sequence[Coverage], folder: Path) -> None:
    """coverage.md, level.csv and coverage.csv.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "level-and-coverage.md").write_text(page(found, covered), encoding="utf-8")
        _write_csv(folder / "level.csv", LevelCell, Level, found)
        _write_csv(folder / "coverage.csv", BiasCell, Coverage, covered)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None


def _write_csv(path: Path, cell: type, kind: type, lines: Sequence[Level] | Sequence[Coverage]) -> None:
    counted = ("cell", "above") if kind is Level else ("cell",)
    own = [f.name for f in fields(kind) if f.name not in counted]
    tails = [f"above_{tail:g}" for tail in LEVELS] if kind is Level else []
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*(f.name for f in fields(cell)), *own, *tails])
        for one in lines:
            counts = one.above if isinstance(one, Level) else []
            table.writerow([*asdict(one.cell).values(), *(getattr(one, name) for name in own), *counts])
