"""What the repetitions of a cell came to, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .cells import Cell
from .quantities.base import Found, Quantities

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


@dataclass(frozen=True)
class Coverage:
    """How often a printed interval of one quantity held the truth, in one case.

    Attributes:
        quantity: as results call it.
        case: what was drawn.
        n: independent repetitions, data or seeds behind each number.
        confidence: of the interval.
        printed: repetitions that printed it.
        repetitions: of all.
        coverage: share of the printed whose interval holds the truth.
        low: lower end of the coverage's own 95% interval (Clopper and Pearson).
        high: upper end.
        below: share whose interval lies below the truth.
        above: share whose interval lies above it.
        marked: share marked as not enough.
        verdict: "ok", "exempt" or "coverage".
    """

    quantity: str
    case: str
    n: int
    confidence: float
    printed: int
    repetitions: int
    coverage: float
    low: float
    high: float
    below: float
    above: float
    marked: float
    verdict: str


def judge(quantity: str, case: Quantities, found: Sequence[Found], repetitions: int) -> Coverage:
    """Sum up the repetitions of a case that printed a quantity."""
    truth, n = case.truths[quantity], len(found)
    if not n:
        none = (math.nan,) * 6
        return Coverage(quantity, case.case, case.n, case.confidence, 0, repetitions, *none, "exempt")
    below, above = (sum(flags) / n for flags in _misses(found, truth))
    covered = n - round(n * (below + above))
    marked = sum(one.marked for one in found) / n
    ends = stats.binomtest(covered, n).proportion_ci(0.95)
    return Coverage(
        quantity, case.case, case.n, case.confidence, n, repetitions, covered / n, float(ends.low),
        float(ends.high), below, above, marked, _held(case, quantity, covered, n, marked),
    )  # fmt: skip


def _misses(found: Sequence[Found], truth: float) -> tuple[list[bool], list[bool]]:
    """Whether an interval lies below the truth, and above; rounding at the very end is no miss."""
    slack = 1e-9 * abs(truth)
    return [one.high < truth - slack for one in found], [one.low > truth + slack for one in found]


def _held(case: Quantities, quantity: str, covered: int, n: int, marked: float) -> str:
    if marked > 0.5:
        return "exempt"
    least = case.confidence - (0.95 - BAND[0]) * (1 - case.confidence) / 0.05
    if stats.binom.cdf(covered, n, least) < LEVEL:
        return "coverage"
    too_wide = stats.binom.sf(covered - 1, n, BAND[1]) < LEVEL
    return "coverage" if too_wide and quantity not in case.cautious else "ok"
