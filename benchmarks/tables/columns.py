"""What people read of each benchmark: headings, rounded numbers, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..rows.bias import UNCHECKED, WRONG, interval_text
from ..rows.text import interval, number, percent
from ..rows.wide import NEGLIGIBLE
from .cases import breakdown_cases, convergence_cases, ratio_cases, throughput_cases, variance_cases
from .targets import target_cases, tuning_cases

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
class Table:
    """One benchmark's table: its cases, the columns that people read, and what those mean.

    Attributes:
        name: of the benchmark or what of it is shown, and of the CSV file.
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


def interval_of(metric: str) -> Cell:
    """A number with its interval, where it has one."""
    return lambda case: interval(case[metric], case[f"{metric}_low"], case[f"{metric}_high"])


def bias_with_interval(case: Mapping[str, Any]) -> str:
    """The estimated relative bias with its 95% interval, and a mark where the mean is wrong."""
    if case["bias_verdict"] == UNCHECKED:
        return "" if pd.isna(case["variance"]) else UNCHECKED
    return f"✗ {interval_text(case)}" if case["bias_verdict"] == WRONG else interval_text(case)


def bias_in_short(case: Mapping[str, Any]) -> str:
    """The same, but the bound alone where the interval reaches down to zero."""
    beyond_zero = case["bias_low"] > 0 or case["bias_verdict"] in (WRONG, UNCHECKED)
    return bias_with_interval(case) if beyond_zero else f"≤ {percent(case['bias_bound'])}".removesuffix("≤ ")


def _shares(case: Mapping[str, Any], metric: str) -> dict[str, float]:
    """part -> its share of what all parts of a metric add up to, in their order."""
    start = f"{metric}["
    found = {k[len(start) : -1]: case[k] for k in case if k.startswith(start) and not pd.isna(case[k])}
    total = sum(found.values())
    return {part: value / total for part, value in found.items()} if total > 0 else {}


def _parts_of_eta(case: Mapping[str, Any]) -> str:
    return ", ".join(f"{part} {percent(share)}" for part, share in _shares(case, "eta_variance").items())


def _first_part_of_eta(case: Mapping[str, Any]) -> str:
    return _parts_of_eta(case).partition(", ")[0]


def _largest_layer(case: Mapping[str, Any]) -> str:
    shares = _shares(case, "variance_by_layer")
    largest = max(shares, key=lambda layer: shares[layer], default="")
    return f"{largest} {percent(shares[largest])}" if shares else ""


def _seeds(case: Mapping[str, Any]) -> str:
    """How many seeds, and how many of them did not diverge."""
    if not case["seeds"]:
        return ""
    kept = case["seeds"] - case["diverged"]
    return f"{kept:.0f} of {case['seeds']:.0f}" if case["diverged"] else f"{case['seeds']:.0f}"


def time_of(unit: str, digits: int = 3) -> Cell:
    """A median time with its interval; what is beyond the budget is said to be."""

    def text(value: float, budget: float) -> str:
        return f"> {number(budget, digits)}" if math.isinf(value) else number(value, digits)

    def cell(case: Mapping[str, Any]) -> str:
        value, low, high, budget = (float(case[f"{unit}{end}"]) for end in ("", "_low", "_high", "_budget"))
        if math.isnan(value):
            return ""
        if math.isnan(low) or math.isinf(low):
            return text(value, budget)
        return f"{text(value, budget)} [{text(low, budget)}, {text(high, budget)}]"

    return cell


def _reached(case: Mapping[str, Any]) -> str:
    return f"{case['reached']:.0f} of {case['runs']:.0f}"


def _target(case: Mapping[str, Any]) -> str:
    objective = number(case["target_objective"], 4)
    return (
        objective if case["target"] == f"{case['target_objective']:g}" else f"{case['target']}: {objective}"
    )


def _without_rounding_errors(cases: pd.DataFrame) -> pd.DataFrame:
    """A plain 0 for the variance of a deterministic estimator, which is rounding error."""
    table = cases.copy()
    zero = table["variance"] <= NEGLIGIBLE * table.groupby("problem")["variance"].transform("max")
    table.loc[zero, ["variance", "work_normalized_variance"]] = 0.0
    table.loc[zero, ["variance_low", "variance_high", "snr"]] = float("nan")
    return table


def _without_deterministic(cases: pd.DataFrame) -> pd.DataFrame:
    """A deterministic estimator has no noise to break down."""
    largest = cases.groupby("problem")["variance"].transform("max")
    return cases[cases["variance"] > NEGLIGIBLE * largest]


TABLES = (
    Table(
        "variance",
        "Gradient variance",
        variance_cases,
        (
            Column("variance", interval_of("variance")),
            Column("bias", bias_with_interval, terminal=False),
            Column("bias", bias_in_short, page=False),
            Column("bias ≤", lambda case: percent(case["bias_bound"]), terminal=False),
            Column("ms", _number("seconds", scale=1000)),
            Column("evaluations", count("evaluations"), terminal=False),
            Column("var × ms", _number("work_normalized_variance", scale=1000)),
        ),
        "Variance: tr Cov(ĝ) of the batch-mean gradient, with its 95% interval. Bias: of its mean, relative "
        "to the norm of the true gradient, with its 95% interval and an upper bound at 99% confidence; "
        "✗: the mean is wrong, whatever the variance, and the estimator is not ranked. Time and "
        "evaluations of log p(x|z) per datum: of one training-step gradient.",
        _without_rounding_errors,
    ),
    Table(
        "breakdown",
        "Signal and noise",
        breakdown_cases,
        (
            Column("SNR", interval_of("snr"), terminal=False),
            Column("SNR", _number("snr"), page=False),
            Column("cosine", interval_of("cosine"), terminal=False),
            Column("cosine", _number("cosine"), page=False),
            Column("kurtosis", _number("kurtosis")),
            Column("minibatch variance", interval_of("minibatch_variance"), terminal=False),
            Column("minibatch", _number("minibatch_variance"), page=False),
            Column("parts of η", _parts_of_eta, terminal=False, number=False),
            Column("of η", _first_part_of_eta, page=False),
            Column("largest layer", _largest_layer, terminal=False, number=False),
            Column("gap (nats)", _number("heldout_gap"), terminal=False),
        ),
        "SNR: signal-to-noise ratio ‖E ĝ‖ / √variance, debiased. Cosine: mean, of one estimate and the true "
        "gradient. Kurtosis: of the contributions to the variance, 3 for a Gaussian. Minibatch variance: of "
        "the true batch-mean gradient over the choice of the batch. Parts of η and largest layer: shares of "
        "the variance in η-space and of the total. Gap: of the held-out objective to the best of the "
        "trajectory.",
        _without_deterministic,
    ),
    Table(
        "ratios",
        "Ratios of variances",
        ratio_cases,
        (
            Column("ratio", interval_of("variance_ratio")),
            Column("to", word("relative_to"), number=False),
        ),
        "Variance over that of the estimator named, with its 95% interval, by common random numbers where "
        "the two can share draws.",
    ),
    Table(
        "convergence",
        "Training",
        convergence_cases,
        (
            Column("learning rate", _number("learning_rate", 2), terminal=False),
            Column("steps", count("steps"), terminal=False),
            Column("held-out objective", interval_of("heldout_objective")),
            Column("untuned", interval_of("untuned_objective"), terminal=False),
            Column("log-likelihood", interval_of("heldout_log_likelihood"), terminal=False),
            Column("exact", interval_of("exact_log_likelihood"), terminal=False),
            Column("check", _number("annealed_gain", 2), terminal=False),
            Column("log-lik.", _number("heldout_log_likelihood", 4), page=False),
            Column("time (s)", _number("seconds")),
            Column("seeds", _seeds),
        ),
        "Nats per datum, higher is better; means over the seeds that did not diverge, with 95% intervals by "
        "Student's t over the seeds. "
        "Untuned: the objective at the usual rate, 0.003. Log-likelihood: importance-weighted, held-out; "
        "exact where all states can be summed. Check: what annealing adds to it on 16 data.",
    ),
    Table(
        "tuning",
        "Tuning",
        tuning_cases,
        (
            Column("learning rate", _number("learning_rate", 2)),
            Column("1 trial", _number("best_1", 5), terminal=False),
            Column("best of 5", _number("best_5", 5)),
            Column("best of all", interval_of("best_all")),
            Column("trials", count("trials")),
            Column("diverged", count("lost"), terminal=False),
        ),
        "Expected best objective of so many random trials, on the data that rates are chosen by, with its "
        "95% bootstrap interval; nats per datum, higher is better. All estimators have the same trials.",
    ),
    Table(
        "time-to-target",
        "Time to target",
        target_cases,
        (
            Column("target", _target, number=False),
            Column("reached", _reached),
            Column("steps", time_of("steps")),
            Column("restricted mean", _number("steps_mean"), terminal=False),
            Column("evaluations", time_of("evaluations"), terminal=False),
            Column("time (s)", time_of("seconds"), terminal=False),
            Column("p", _number("p_value", 2), terminal=False),
        ),
        "Median steps (Kaplan–Meier, with its 95% interval), evaluations of log p(x|z) and seconds until the "
        "held-out objective is at the target; > the budget where fewer than half of the runs are there. "
        "p: of the steps against the first estimator's, by exchanging runs of one seed, adjusted by Holm.",
    ),
    Table(
        "throughput",
        "Throughput",
        throughput_cases,
        (
            Column("steps/s", interval_of("steps_per_second")),
            Column("gradients/s", interval_of("gradients_per_second"), terminal=False),
            Column("peak MiB", _number("peak_memory", scale=2.0**-20)),
        ),
        "Training steps and gradients a second: medians with 95% intervals, ranked by "
        "the lower end. Eager mode unless said.",
    ),
)
