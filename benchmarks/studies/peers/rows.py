"""One line of the comparison: a contender in a case, as the CSV file holds it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from .cases import Case, Contender

FILE = "peers.csv"


@dataclass
class Row:
    """A contender's numbers; NaN where there is none.

    Attributes:
        problem: specification.
        estimator: of the suite.
        num_samples: S.
        contender: its label.
        library: a key of `LIBRARIES`.
        status: done, failed, or skipped where the library is not installed.
        note: why it failed, or what is different about its estimator.
        same: whether it is the same estimator as the suite's.
        replicate_seconds: median seconds of one φ-gradient, with 95% interval (loops).
        replicates: what the precision needs (loops), or what the suite's median run spent.
        seconds: to the precision, with 95% interval.
        ran_out: seconds it really took when drawn to that number of replicates, where it was.
        ran_out_half_width: relative half-width reached then.
        ratio: seconds over the suite's, with 95% interval.
        variance: tr Cov(ĝ), with 95% interval.
        variance_ratio: to the suite's, with 95% interval.
        mean_p: p-value of "the mean gradient is the reference".
        variance_p: p-value of "the total variance is the suite's"; NaN for another estimator.
        agreement: "agrees", "mean differs", "variance differs", "both differ", or "" when not done.
    """

    problem: str
    estimator: str
    num_samples: int
    contender: str
    library: str
    status: str = "done"
    note: str = ""
    same: bool = True
    replicate_seconds: float = float("nan")
    replicate_seconds_low: float = float("nan")
    replicate_seconds_high: float = float("nan")
    replicates: float = float("nan")
    replicates_low: float = float("nan")
    replicates_high: float = float("nan")
    seconds: float = float("nan")
    seconds_low: float = float("nan")
    seconds_high: float = float("nan")
    ran_out: float = float("nan")
    ran_out_half_width: float = float("nan")
    ratio: float = float("nan")
    ratio_low: float = float("nan")
    ratio_high: float = float("nan")
    variance: float = float("nan")
    variance_low: float = float("nan")
    variance_high: float = float("nan")
    variance_ratio: float = float("nan")
    variance_ratio_low: float = float("nan")
    variance_ratio_high: float = float("nan")
    mean_p: float = float("nan")
    variance_p: float = float("nan")
    agreement: str = ""

    @classmethod
    def of(cls, case: Case, contender: Contender) -> Row:
        """Without numbers yet."""
        return cls(
            case.problem,
            case.estimator,
            case.num_samples,
            contender.label,
            contender.library,
            note=contender.note,
            same=contender.same,
        )


def write(rows: list[Row], folder: Path) -> None:
    """Write the CSV file."""
    columns = [field.name for field in fields(Row)]
    pd.DataFrame([vars(row) for row in rows], columns=columns).to_csv(folder / FILE, index=False)


def read(folder: Path) -> list[Row]:
    """Read it back."""
    table = pd.read_csv(folder / FILE, keep_default_na=False, na_values=[""])
    text = ["note", "agreement"]
    table[text] = table[text].fillna("")
    return [Row(**line) for line in table.to_dict("records")]
