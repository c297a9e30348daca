"""What people read of each benchmark: headings, rounded numbers, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..plots.text import interval, number, percent
from ..plots.wide import NEGLIGIBLE
from .cases import convergence_cases, throughput_cases, variance_cases

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it says of a case, and whether the page and the terminal show it."""

    heading: str
    cell: Cell
    page: bool = True
    terminal: bool = True
    number: bool = True


@dataclass(frozen=True)
class Benchmark:
    """One benchmark's table: its cases, the columns that people read, and what those mean.

    Attributes:
        name: of the benchmark, and of its CSV file.
        title: what it measures.
        cases: rows -> one line a case, unrounded.
        columns: what is read of a case.
        caption: what the columns mean, and their units.
        readable: the cases, less what would only distract a reader.
    """

    name: str
    title: str
    cases: Callable[[pd.DataFrame], pd.DataFrame]
    columns: tuple[Column, ...]
    caption: str
    readable: Callable[[pd.DataFrame], pd.DataFrame] = lambda cases: cases


def count(column: str) -> Cell:
    """A whole number."""
    return lambda case: "" if pd.isna(case[column]) else f"{case[column]:.0f}"


def word(column: str) -> Cell:
    """Text as it is."""
    return lambda case: str(case[column])


def _number(metric: str, digits: int = 3, scale: float = 1.0) -> Cell:
    return lambda case: number(scale * case[metric], digits)


def _interval(metric: str) -> Cell:
    return lambda case: interval(case[metric], case[f"{metric}_low"], case[f"{metric}_high"])


def _seeds(case: Mapping[str, Any]) -> str:
    """How many seeds, and how many of them did not diverge."""
    if not case["seeds"]:
        return ""
    kept = case["seeds"] - case["diverged"]
    return f"{kept:.0f} of {case['seeds']:.0f}" if case["diverged"] else f"{case['seeds']:.0f}"


def _without_rounding_errors(cases: pd.DataFrame) -> pd.DataFrame:
    """A plain 0 for the variance of a deterministic estimator, which is rounding error."""
    table = cases.copy()
    zero = table["variance"] <= NEGLIGIBLE * table.groupby("problem")["variance"].transform("max")
    table.loc[zero, ["variance", "work_normalized_variance"]] = 0.0
    table.loc[zero, ["variance_low", "variance_high", "snr"]] = float("nan")
    return table


BENCHMARKS = (
    Benchmark(
        "variance",
        "Gradient variance",
        variance_cases,
        (
            Column("variance", _interval("variance")),
            Column("SNR", _number("snr"), terminal=False),
            Column("bias ≤", lambda case: percent(case["bias_bound"])),
            Column("ms", _number("seconds", scale=1000)),
            Column("evaluations", count("evaluations"), terminal=False),
            Column("var × ms", _number("work_normalized_variance", scale=1000)),
        ),
        "Variance: tr Cov(ĝ) of the batch-mean gradient, with its 95% interval. SNR: signal-to-noise ratio, "
        "debiased. Bias: upper bound at 99% confidence, relative to the norm of the gradient. Time and "
        "evaluations of log p(x|z) per datum: of one training-step gradient.",
        _without_rounding_errors,
    ),
    Benchmark(
        "convergence",
        "Training",
        convergence_cases,
        (
            Column("learning rate", _number("learning_rate", 2), terminal=False),
            Column("steps", count("steps"), terminal=False),
            Column("held-out objective", _interval("heldout_objective")),
            Column("log-likelihood", _interval("heldout_log_likelihood"), terminal=False),
            Column("log-lik.", _number("heldout_log_likelihood", 4), page=False),
            Column("time (s)", _number("seconds")),
            Column("seeds", _seeds),
        ),
        "Nats per datum, higher is better; means over the seeds that did not diverge, with 95% intervals. "
        "Log-likelihood: importance-weighted, held-out.",
    ),
    Benchmark(
        "throughput",
        "Throughput",
        throughput_cases,
        (
            Column("steps/s", _interval("steps_per_second")),
            Column("gradients/s", _interval("gradients_per_second"), terminal=False),
            Column("peak MiB", _number("peak_memory", scale=2.0**-20)),
        ),
        "Training steps and gradients a second: medians with 95% intervals. Eager mode unless said.",
    ),
)
