"""The table behind the verdict: one line an estimator and setting, with the filters above it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..rows.text import describe, interval, percent, say, shorten
from ..tables.columns import bias_with_interval, time_of
from .cells import Cell, Grid, Heading, Line
from .lines import SETTINGS

Case = Mapping[str, Any]


@dataclass(frozen=True)
class Filter:
    """A choice above the table: setting, label, value -> words, and the value chosen at first ("": all)."""

    setting: str
    label: str
    options: dict[str, str]
    chosen: str


@dataclass(frozen=True)
class _Column:
    heading: Heading
    cell: Callable[[Case], Cell]


def _interval(metric: str, scale: float = 1.0) -> Callable[[Case], Cell]:
    def cell(case: Case) -> Cell:
        value, low, high = (scale * float(case[f"{metric}{end}"]) for end in ("", "_low", "_high"))
        return Cell(interval(value, low, high), value)

    return cell


def _variance(case: Case) -> Cell:
    """The variance with its interval; of a case of which nothing was measured, what became of it."""
    if isinstance(case["lost"], str) and case["lost"] and math.isnan(float(case["variance"])):
        return Cell(case["lost"], float("nan"))
    return _interval("variance")(case)


def _text(column: str, width: int = 200) -> Callable[[Case], Cell]:
    return lambda case: Cell(shorten(str(case[column]), width))


def _setting(column: str) -> Callable[[Case], Cell]:
    def cell(case: Case) -> Cell:
        value = case[column]
        if column in ("latent_dim", "batch_size", "num_samples"):
            return Cell("" if pd.isna(value) else f"{value:.0f}", float(value))
        if column == "step":
            return Cell(say(column, value), float(value))
        return Cell(shorten(str(value), 60))

    return cell


def _trained_cell(case: Case) -> Cell:
    """The objective, and the S of training where that is not the line's and not in the heading."""
    cell = _interval("heldout_objective")(case)
    trained = case["trained_samples"]
    if cell.text and trained not in (case["num_samples"], case["one_trained"]) and not pd.isna(trained):
        return Cell(f"{cell.text} at S = {trained:.0f}", cell.value)
    return cell


def _time_to_target(case: Case) -> Cell:
    return Cell(time_of("steps")(case), float(case["steps"]))


def _bias_interval(case: Case) -> Cell:
    return Cell(bias_with_interval(case), float(case["bias"]))


def _bias(case: Case) -> Cell:
    return Cell(percent(float(case["bias_bound"])), float(case["bias_bound"]))


def _count(column: str) -> Callable[[Case], Cell]:
    def cell(case: Case) -> Cell:
        value = float(case[column])
        return Cell("" if math.isnan(value) else f"{value:.0f}", value)

    return cell


_PLACES = {
    "problem": Heading("problem", "The model that was differentiated.", name=True),
    "latent_dim": Heading("D", "Latent dimension: the size of z.", number=True),
    "batch_size": Heading("B", "Data a batch.", number=True),
    "num_samples": Heading("S", "Samples of z an estimate.", number=True),
    "step": Heading("where", "The parameters at which it was measured: the training step of the checkpoint."),
    "device": Heading("device"),
    "dtype": Heading("dtype", "Floating-point type."),
    "mode": Heading("mode", "eager, compiled or cuda-graph."),
}
_FINAL = Heading(
    "final objective",
    "Held-out objective (ELBO) at the end of training with the estimator, nats a datum: mean over the seeds "
    "that did not diverge, with its 95% interval. Higher is better.",
    number=True,
)
_MEASURED = (
    _Column(
        Heading(
            "variance",
            "tr Cov(ĝ): the total variance of the batch-mean gradient estimate ĝ with respect to the "
            "encoder's parameters φ, with its 95% interval. Lower is better.",
            number=True,
        ),
        _variance,
    ),
    _Column(
        Heading(
            "bias",
            "Estimated distance from the mean estimate to the true gradient, relative to the gradient's "
            "norm, with its 95% interval. ✗: the mean is wrong beyond doubt, whatever the variance; such an "
            "estimator is not ranked.",
            number=True,
        ),
        _bias_interval,
    ),
    _Column(
        Heading(
            "bias ≤",
            "Upper bound, at 99% confidence, of the distance from the mean estimate to the true gradient, "
            "relative to the gradient's norm. A bound and no estimate: with more replicates it falls.",
            number=True,
        ),
        _bias,
    ),
    _Column(
        Heading("time (ms)", "Cost: median milliseconds of one training-step gradient.", number=True),
        _interval("seconds", 1000),
    ),
    _Column(
        Heading("evals", "Cost: evaluations of log p(x|z) a datum and estimate.", number=True),
        _count("evaluations"),
    ),
    _Column(
        Heading(
            "var × ms",
            "Work-normalized variance: variance × time, in milliseconds. The time to reach a given precision "
            "is proportional to it, so it decides what to use. Lower is better.",
            number=True,
        ),
        _interval("work_normalized_variance", 1000),
    ),
    _Column(_FINAL, _trained_cell),
    _Column(
        Heading(
            "steps to target",
            "Median training steps until the held-out objective is what tuning reaches with the median "
            "estimator (or the last target that was asked for), with its 95% interval; > the budget where "
            "fewer than half of the runs get there. Lower is better.",
            number=True,
        ),
        _time_to_target,
    ),
    _Column(
        Heading("steps/s", "Full training steps a second: median with its 95% interval.", number=True),
        _interval("steps_per_second"),
    ),
)
_NOTE = _Column(Heading("note", "Warnings, and why a case was skipped, failed or diverged."), _text("note"))
_OBJECTIVE = Heading(
    "objective",
    "What the estimator differentiates: elbo, the evidence lower bound, or another. Variances and biases are "
    "comparable within one objective only.",
)


def grid(cases: pd.DataFrame, several: bool) -> Grid:
    """The table of `lines`, of several runs or one; columns that would be empty are left out."""
    columns = [
        _Column(Heading("estimator", "The Monte Carlo estimator of ∇φ.", name=True), _text("estimator", 60))
    ]
    if several:
        columns.append(_Column(Heading("run", "The folder it was measured in."), _text("run", 60)))
    columns.append(_Column(_OBJECTIVE, _text("objective")))
    varying = [s for s in SETTINGS if cases[s].nunique() > 1]
    trained = cases["trained_samples"].dropna().unique()
    one = trained[0] if len(trained) == 1 else float("nan")
    cases = cases.assign(one_trained=one)
    apart = len(trained) == 1 and bool((cases["num_samples"].dropna() != one).any())
    final = replace(_FINAL, text=f"{_FINAL.text}, S = {one:.0f}") if apart else _FINAL
    measured = [_Column(final, column.cell) if column.heading is _FINAL else column for column in _MEASURED]
    columns += [*measured, *(_Column(_PLACES[s], _setting(s)) for s in varying), _NOTE]
    records = cases.to_dict("records")
    cells = {column: [column.cell(case) for case in records] for column in columns}
    kept = [column for column, texts in cells.items() if any(cell.text for cell in texts)]
    return Grid(
        "verdict-table",
        "Estimators compared",
        [column.heading for column in kept],
        [
            Line([cells[column][i] for column in kept], _marks(case, varying))
            for i, case in enumerate(records)
        ],
        settings=describe({s: cases[s].iloc[0] for s in SETTINGS if s not in varying}) if len(cases) else "",
    )


def _marks(case: Case, settings: list[str]) -> dict[str, str]:
    marks = {"estimator": str(case["estimator"]), "run": str(case["run"]), "problem": str(case["family"])}
    marks |= {setting: _value(case[setting]) for setting in settings if setting != "problem"}
    return marks | {"default": str(int(case["default"]))}


def _value(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def filters(cases: pd.DataFrame) -> list[Filter]:
    """A choice for each setting that varies; the settings that most was measured at show first.

    Where problems or runs differ in these, a choice of its own shows the lines at each one's own.
    """
    found = []
    first = cases[cases["default"]]
    for setting in SETTINGS:
        if setting == "problem" or cases[setting].nunique() < 2:
            continue
        values = sorted(cases[setting].dropna().unique())
        words = {v: say(setting, v) if setting == "step" else "" for v in values}
        options = {_value(v): words[v] or _value(v) for v in values}
        usual = first[setting].dropna().unique()
        chosen = _value(usual[0]) if len(usual) == 1 else ""
        found.append(Filter(setting, _PLACES[setting].text, options, chosen))
    if all(filter.chosen for filter in found) or cases["default"].all():
        return found
    main = Filter("default", "settings", {"1": "each problem's last step, one S"}, "1")
    return [main, *(replace(filter, chosen="") for filter in found)]
