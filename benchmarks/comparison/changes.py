"""Ratios and differences of what two runs have in common, with intervals that hold all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ..plots.wide import KEYS, NEGLIGIBLE
from ..tables.cases import convergence_cases, throughput_cases, variance_cases

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
_TABLES = {"variance": variance_cases, "convergence": convergence_cases, "throughput": throughput_cases}
_INFINITE = 1e9


def changes(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """What became of each number of run a in run b, one line a case and metric.

    ``change`` is b / a, or b − a for objectives (nats). Its interval combines those of a and b, taken to be
    independent (the method of variance estimates recovery, on logarithms for ratios, so that skewed intervals
    stay skewed), each stretched so that all intervals of the comparison hold at once with probability
    ``level`` (Bonferroni). Where both runs drew the same numbers the intervals are too wide, not too narrow.

    Returns:
        the settings, ``metric``, ``kind``, ``a`` and ``b`` with their ends, ``change``, ``change_low``,
        ``change_high`` and ``verdict``: "higher", "lower", "no change shown", "identical", "only before",
        "only after", or "not compared" where one of both is not positive or has no interval.

    References:
        Donner & Zou, Closed-form confidence intervals for functions of the normal mean and standard
        deviation, 2012 (the combination of intervals).
    """
    found = [part for part in (_paired(a, b, metric) for metric in metrics) if len(part)]
    if not found:
        return pd.DataFrame(columns=[*KEYS, "metric", "kind", "a", "b", "change", "verdict"])
    table = pd.concat(found, ignore_index=True)
    comparable = [_comparable(line) for line in table.to_dict("records")]
    each = 1 - (1 - level) / max(sum(comparable), 1)
    lines = [
        _change(line, each) if good else {"change": math.nan, "change_low": math.nan, "change_high": math.nan}
        for line, good in zip(table.to_dict("records"), comparable, strict=True)
    ]
    table = pd.concat([table, pd.DataFrame(lines)], axis=1)
    verdicts = [_verdict(line) for line in table.to_dict("records")]
    return table.assign(verdict=verdicts)


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> pd.DataFrame:
    where, kind = METRICS[metric]
    sides = []
    for side, rows in (("a", a), ("b", b)):
        cases = _TABLES[where](rows)
        if cases.empty or metric not in cases:
            cases = pd.DataFrame(columns=[*KEYS, metric, f"{metric}_low", f"{metric}_high", "seeds"])
        keys = [key for key in KEYS if key in cases]
        degrees = cases["seeds"] - cases["diverged"] - 1 if "diverged" in cases else _INFINITE
        one = cases[keys].assign(
            **{
                side: cases[metric],
                f"{side}_low": cases.get(f"{metric}_low", math.nan),
                f"{side}_high": cases.get(f"{metric}_high", math.nan),
                f"{side}_degrees": degrees,
            }
        )
        sides.append(one[one[side].notna()])
    keys = [key for key in KEYS if key in sides[0] and key in sides[1]]
    for side in sides:
        side[keys] = side[keys].astype(object)
    table = sides[0].merge(sides[1], on=keys, how="outer", sort=False)
    numbers = [f"{side}{end}" for side in "ab" for end in ("", "_low", "_high", "_degrees")]
    table[numbers] = table[numbers].astype("float64")
    # The rounding error that a deterministic estimator has for a variance is no measurement.
    if metric in ("variance", "work_normalized_variance"):
        largest = table[["a", "b"]].max().max()
        table = table[~(table[["a", "b"]].max(axis=1) <= NEGLIGIBLE * largest)]
    return table.assign(metric=metric, kind=kind)


def _comparable(line: dict[str, Any]) -> bool:
    ends = [line[f"{side}{end}"] for side in "ab" for end in ("", "_low", "_high")]
    if any(math.isnan(end) for end in ends) or min(line["a_degrees"], line["b_degrees"]) < 1:
        return False
    return line["kind"] == "difference" or min(line["a"], line["b"]) > 0


def _change(line: dict[str, Any], level: float) -> dict[str, float]:
    """The change and its interval at this level."""
    ratio = line["kind"] == "ratio"
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
    names = ("change", "change_low", "change_high")
    return dict(zip(names, (float(back(v)) for v in (change, low, high)), strict=True))


def _log(value: float, ratio: bool) -> float:
    if not ratio:
        return value
    return math.log(value) if value > 0 else -math.inf


def _verdict(line: dict[str, Any]) -> str:
    if math.isnan(line["a"]) or math.isnan(line["b"]):
        return "only after" if math.isnan(line["a"]) else "only before"
    if all(line[f"a{end}"] == line[f"b{end}"] for end in ("", "_low", "_high")):
        return "identical"
    if math.isnan(line["change"]):
        return "not compared"
    same = 1.0 if line["kind"] == "ratio" else 0.0
    if line["change_low"] > same:
        return "higher"
    return "lower" if line["change_high"] < same else "no change shown"
