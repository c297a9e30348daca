"""Ratios and differences of what two runs have in common, with intervals that hold all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ..rows.identity import check_one_model
from ..rows.wide import KEYS, NEGLIGIBLE, pivot, select
from ..tables.cases import convergence_cases

#: metric -> where it is found and how two of it are compared.
METRICS = {
    "variance": ("variance", "ratio"),
    "seconds": ("variance", "ratio"),
    "work_normalized_variance": ("variance", "ratio"),
    "heldout_objective": ("convergence", "difference"),
    "steps_per_second": ("throughput", "ratio"),
    "gradients_per_second": ("throughput", "ratio"),
}
DEFAULT_METRICS = tuple(metric for metric in METRICS if metric != "gradients_per_second")
TIMES = ("seconds", "work_normalized_variance", "steps_per_second", "gradients_per_second")
_INFINITE = 1e9
#: Timings whose range covers their median with 94%; of fewer the range says too little.
_LEAST_TIMINGS = 5
#: What is found of each side: value, ends, degrees of freedom, whether replicates lack, diverged seeds.
_SIDE = ("", "_low", "_high", "_degrees", "_few", "_lost")


def changes(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """What became of each number of run a in run b, one line a case and metric.

    ``change`` is b / a, or b − a for objectives (nats). Its interval combines those of a and b, taken to be
    independent (the method of variance estimates recovery, on logarithms for ratios, so that skewed intervals
    stay skewed), each stretched by Student's quantiles so that all intervals of the comparison hold at once
    with probability ``level`` (Bonferroni). Where both runs drew the same numbers the intervals are too wide,
    not too narrow. Of timings they hold what varies within a run, not what varies from run to run.

    A variance of exactly 0 makes the ratio 0 or infinite; one below 1e-10 of the largest of its problem in
    both runs is the rounding error of an estimator without noise, and "negligible". Training is compared at
    the same number of steps.

    Raises:
        UsageError: the runs have different weights or data at what is called one point.

    Returns:
        the settings, ``metric``, ``kind``, ``a`` and ``b`` with their ends, ``change``, ``change_low``,
        ``change_high``; ``verdict``: "higher", "lower", "no change shown", "identical", "negligible", "only
        before", "only after" or "not compared", and ``reason``, why not; ``a_few`` and ``b_few``, whether
        replicates are too few; ``a_lost`` and ``b_lost``, how many seeds diverged.

    References:
        Donner & Zou, Closed-form confidence intervals for functions of the normal mean and standard
        deviation, 2012 (the combination of intervals).
    """
    check_one_model(pd.concat([a, b], ignore_index=True))
    found = [part for part in (_paired(a, b, metric) for metric in metrics) if len(part)]
    if not found:
        return pd.DataFrame(columns=[*KEYS, "metric", "kind", "a", "b", "change", "verdict", "reason"])
    lines = pd.concat(found, ignore_index=True).to_dict("records")
    reasons = [_obstacle(line) for line in lines]
    each = 1 - (1 - level) / max(reasons.count(""), 1)
    unknown = dict.fromkeys(("change", "change_low", "change_high"), math.nan)
    for line, reason in zip(lines, reasons, strict=True):
        line |= unknown if reason else _change(line, each)
        line |= {"verdict": _verdict(line), "reason": reason}
    return pd.DataFrame(lines)


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> pd.DataFrame:
    sides = [_side(rows, metric, side) for side, rows in (("a", a), ("b", b))]
    keys = [key for key in KEYS if key in sides[0] and key in sides[1]]
    for side in sides:
        side[keys] = side[keys].astype(object)
    table = sides[0].merge(sides[1], on=keys, how="outer", sort=False)
    for side in "ab":
        numbers = [f"{side}{what}" for what in _SIDE]
        table[numbers] = table[numbers].astype("float64")
    table["negligible"] = False
    if metric in ("variance", "work_normalized_variance"):
        largest = table[["a", "b"]].max(axis=1).groupby(table["problem"]).transform("max")
        table["negligible"] = table[["a", "b"]].max(axis=1, skipna=False) <= NEGLIGIBLE * largest
    return table.assign(metric=metric, kind=METRICS[metric][1])


def _side(rows: pd.DataFrame, metric: str, side: str) -> pd.DataFrame:
    """The cases of one run in which a metric was measured."""
    where, _ = METRICS[metric]
    found = _trained(rows, metric) if where == "convergence" else _measured(rows, where, metric)
    cases = found[found[metric].notna()].rename(
        columns={f"{metric}{what}": f"{side}{what}" for what in _SIDE}
    )
    return cases[[*(key for key in KEYS if key in cases), *(f"{side}{what}" for what in _SIDE)]]


def _trained(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    cases = convergence_cases(rows)
    more = {"_degrees": cases["seeds"] - cases["diverged"] - 1, "_few": False, "_lost": cases["diverged"]}
    return cases.assign(step=cases["steps"], **{f"{metric}{what}": value for what, value in more.items()})


def _measured(rows: pd.DataFrame, benchmark: str, metric: str) -> pd.DataFrame:
    """Repetitions and warnings are those of a product's factors, the fewer of them."""
    factors = ("variance", "seconds") if metric == "work_normalized_variance" else (metric,)
    keys = [key for key in KEYS if benchmark == "variance" or key not in ("objective", "step")]
    wide = pivot(select(rows, benchmark), list(dict.fromkeys((metric, *factors))), keys)
    degrees = wide[[f"{factor}_n" for factor in factors]].min(axis=1).astype("float64") - 1
    warned = zip(*(wide[f"{factor}_reason"] for factor in factors), strict=True)
    few = ["not enough replicates" in "; ".join(reasons) for reasons in warned]
    more = {"_degrees": degrees.fillna(_INFINITE), "_few": few, "_lost": 0}
    return wide.assign(**{f"{metric}{what}": value for what, value in more.items()})


def _obstacle(line: dict[str, Any]) -> str:
    """Why two numbers cannot be compared, or ""."""
    if math.isnan(line["a"]) or math.isnan(line["b"]):
        return "measured in one run only"
    if line["negligible"]:
        return "rounding errors"
    if any(math.isnan(line[f"{side}{end}"]) for side in "ab" for end in ("_low", "_high")):
        return "no interval"
    if any(not line[f"{side}_low"] <= line[side] <= line[f"{side}_high"] for side in "ab"):
        return "a value outside of its interval"
    fewest = min(line["a_degrees"], line["b_degrees"]) + 1
    if fewest < 2:
        return "a single repetition"
    if line["metric"] in TIMES and fewest < _LEAST_TIMINGS:
        return f"fewer than {_LEAST_TIMINGS} timings"
    if line["kind"] == "ratio":
        if min(line["a"], line["b"]) < 0:
            return "a negative value"
        if any(line[side] == 0 and line[f"{side}_high"] > 0 for side in "ab"):
            return "a value of 0 that may be more"
    return ""


def _change(line: dict[str, Any], level: float) -> dict[str, float]:
    """The change and its interval at this level."""
    ratio = line["kind"] == "ratio"
    names = ("change", "change_low", "change_high")
    if ratio and min(line["a"], line["b"]) == 0:
        return dict(zip(names, _with_zero(line), strict=True))
    below, above = {}, {}
    for side in "ab":
        value, low, high = (_log(line[f"{side}{end}"], ratio) for end in ("", "_low", "_high"))
        degrees = line[f"{side}_degrees"]
        stretch = student.ppf((1 + level) / 2, degrees) / student.ppf(0.975, degrees)
        below[side], above[side] = stretch * (value - low), stretch * (high - value)
    change = _log(line["b"], ratio) - _log(line["a"], ratio)
    low = change - math.hypot(below["b"], above["a"])
    high = change + math.hypot(above["b"], below["a"])
    back = np.exp if ratio else float
    return dict(zip(names, (float(back(v)) for v in (change, low, high)), strict=True))


def _with_zero(line: dict[str, Any]) -> tuple[float, float, float]:
    """A ratio with a number that is known to be 0; open where the other's interval allows 0/0."""
    if line["a"] == line["b"] == 0:
        return math.nan, 0.0, math.inf
    if line["a"] == 0:
        return math.inf, math.inf if line["b_low"] > 0 else 0.0, math.inf
    return 0.0, 0.0, 0.0 if line["a_low"] > 0 else math.inf


def _log(value: float, ratio: bool) -> float:
    if not ratio:
        return value
    return math.log(value) if value > 0 else -math.inf


def _verdict(line: dict[str, Any]) -> str:
    if math.isnan(line["a"]) or math.isnan(line["b"]):
        return "only after" if math.isnan(line["a"]) else "only before"
    if line["negligible"]:
        return "negligible"
    if all(line[f"a{end}"] == line[f"b{end}"] for end in ("", "_low", "_high")):
        return "identical"
    if math.isnan(line["change"]):
        return "not compared"
    same = 1.0 if line["kind"] == "ratio" else 0.0
    if line["change_low"] > same:
        return "higher"
    return "lower" if line["change_high"] < same else "no change shown"
