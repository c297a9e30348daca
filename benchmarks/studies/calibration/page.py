"""The study's table: on the terminal, as a page and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from ....estimators.errors import UsageError
from .outcome import Coverage, Outcome

HEADER = ("case", "R", "coverage", "its 95% interval", "marked", "needed", "bias", "verdict")


def columns(o: Outcome) -> tuple[str, ...]:
    """The outcome as printed."""
    goal = f"{o.replicates:,.0f}" + ("" if math.isnan(o.precision) else f" (precision {o.precision:g})")
    return (
        f"{o.problem.partition('[')[0]} {o.estimator}",
        goal,
        f"{100 * o.coverage:.1f}%",
        f"{100 * o.low:.1f}–{100 * o.high:.1f}",
        f"{100 * o.marked:.0f}%",
        "" if math.isnan(o.needed) else f"{o.needed:,.0f}",
        f"{100 * o.bias:+.2f}% ± {196 * o.bias_error:.2f}",
        o.verdict,
    )


def line(row: Sequence[str]) -> str:
    """One line of the table on a terminal."""
    widths = (46, 24, 8, 16, 6, 8, 16, 8)
    return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


_PAGE = """# How often the 95% intervals hold the truth

Each case is measured over and over with fresh seeds by `measure_variance`, where the variance is known by
quadrature; every repetition counts, those marked "not enough replicates" too. The band is 92.5–97.5%; a case
fails when its coverage is outside by more than the noise of the study (one-sided, 1e-3 on each side). Exempt
are cases of which more than half the repetitions are marked: the last lines try the replicates that these
ask for, the median of *needed*, and are never exempt. Cases with a precision draw until it is reached; the
bias that this causes must stay below a tenth of it. Made by `tox -e calibration`.
"""


_EVERYTHING = """
## Everything else that is printed with an interval

The same question of every other number: drawn where its truth is known, and put through the code that
measurements go through. *Below* and *above* are the shares of intervals that lie below the truth and above
it. The least is 92.5% again (of a confidence other than 95% in proportion), and 97.5% the most, except where
the documentation says that an interval is cautious: one-sided where 0 is not excluded, of timings that could
depend on each other, or of all comparisons at once. Exempt are cases of which more than half the repetitions
are marked as not enough to be trusted. A cosine is printed where 0 is not in the interval of the norm, so
fewer times.
"""

HEADER_OF_ALL = (
    "quantity",
    "case",
    "n",
    "printed",
    "coverage",
    "its 95% interval",
    "below",
    "above",
    "marked",
    "verdict",
)


def columns_of_all(c: Coverage) -> tuple[str, ...]:
    """The coverage as printed."""
    if not c.printed:
        return c.quantity, c.case, f"{c.n:,}", "0%", "", "", "", "", "", c.verdict
    return (
        c.quantity,
        c.case,
        f"{c.n:,}",
        f"{100 * c.printed / c.repetitions:.0f}%",
        f"{100 * c.coverage:.1f}%" + ("" if c.confidence == 0.95 else f" (of {100 * c.confidence:g})"),
        f"{100 * c.low:.1f}–{100 * c.high:.1f}",
        f"{100 * c.below:.1f}%",
        f"{100 * c.above:.1f}%",
        f"{100 * c.marked:.0f}%",
        c.verdict,
    )


def line_of_all(row: Sequence[str]) -> str:
    """One line of that table on a terminal."""
    widths = (30, 44, 7, 7, 16, 16, 6, 6, 6, 8)
    return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def write(outcomes: Sequence[Outcome], folder: Path, others: Sequence[Coverage] = ()) -> None:
    """calibration.csv, intervals.csv and calibration.md.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(folder / "calibration.csv", Outcome, outcomes)
        _write_csv(folder / "intervals.csv", Coverage, others)
        first = _markdown(HEADER, [columns(o) for o in outcomes])
        second = _markdown(HEADER_OF_ALL, [columns_of_all(c) for c in others])
        (folder / "calibration.md").write_text(
            f"{_PAGE}\n{first}\n{_EVERYTHING}\n{second}\n", encoding="utf-8"
        )
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None


def _write_csv(path: Path, kind: type, lines: Sequence[Outcome] | Sequence[Coverage]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(f.name for f in fields(kind))
        table.writerows(astuple(one) for one in lines)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
