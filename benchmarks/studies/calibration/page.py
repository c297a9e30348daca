"""The study's table: on the terminal, as a page and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from ....estimators.errors import UsageError
from .outcome import Outcome

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


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """calibration.csv and calibration.md.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "calibration.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(f.name for f in fields(Outcome))
            table.writerows(astuple(o) for o in outcomes)
        rows = [HEADER, ("---",) * len(HEADER), *(columns(o) for o in outcomes)]
        text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        (folder / "calibration.md").write_text(f"{_PAGE}\n{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None
