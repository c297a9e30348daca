"""What the repetitions of a cell came to, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .cells import Cell

BAND = (0.925, 0.975)
LEVEL = 1e-3


@dataclass(frozen=True)
class Outcome:
    """What the repetitions of a cell came to.

    Attributes:
        problem: measured.
        estimator: measured.
        replicates: R, the mean of them when running to a precision.
        precision: asked for; NaN for a fixed R.
        repetitions: measurements.
        coverage: share whose 95% interval holds the truth.
        low: lower end of the coverage's own 95% interval (Clopper and Pearson).
        high: upper end.
        marked: share marked "not enough replicates".
        needed: median of the replicates that the marked ones ask for; NaN when none is.
        bias: mean estimate over the truth, less 1.
        bias_error: its standard error.
        verdict: "ok", "exempt", "coverage" or "bias".
    """

    problem: str
    estimator: str
    replicates: float
    precision: float
    repetitions: int
    coverage: float
    low: float
    high: float
    marked: float
    needed: float
    bias: float
    bias_error: float
    verdict: str


def assess(cell: Cell, truth: float, found: Sequence[tuple[float, float, float, int, int]]) -> Outcome:
    """Sum up the repetitions of a cell."""
    value, low, high, replicates, needed = np.array(found, dtype=np.float64).T
    n, covered = len(found), int(((low <= truth) & (truth <= high)).sum())
    marked = needed > 0
    ends = stats.binomtest(covered, n).proportion_ci(0.95)
    bias, error = float(value.mean() / truth - 1), float(value.std(ddof=1) / truth / math.sqrt(n))
    return Outcome(
        cell.problem,
        cell.estimator,
        float(replicates.mean()),
        math.nan if cell.precision is None else cell.precision,
        n,
        covered / n,
        float(ends.low),
        float(ends.high),
        float(marked.mean()),
        float(np.median(needed[marked])) if marked.any() else math.nan,
        bias,
        error,
        _verdict(cell, covered, n, float(marked.mean()), bias, error),
    )


def _verdict(cell: Cell, covered: int, n: int, marked: float, bias: float, error: float) -> str:
    if marked > 0.5 and not cell.promised:
        return "exempt"
    below, above = stats.binom.cdf(covered, n, BAND[0]), stats.binom.sf(covered - 1, n, BAND[1])
    if min(below, above) < LEVEL:
        return "coverage"
    if cell.precision is not None and abs(bias) > 0.1 * cell.precision + float(stats.norm.isf(LEVEL)) * error:
        return "bias"
    return "ok"
