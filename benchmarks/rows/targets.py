"""Time to target, from long rows: how long each run takes to reach objectives that were fixed beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..statistics.time_to_target import TimesToTarget, first_time, holm, paired_p_value
from .seeds import OBJECTIVE
from .tuning import WORKLOAD, trials
from .wide import select

#: Which of what the estimators' chosen trials have reached, as quantiles, and what they are called.
QUANTILES = ((0.25, "lower quartile"), (0.5, "median"), (1.0, "best"))
#: What a time is counted in.
UNITS = ("step", "evaluations", "seconds")


@dataclass(frozen=True)
class Target:
    """An objective to reach.

    Attributes:
        objective: held-out, nats a datum.
        name: what it is called.
    """

    objective: float
    name: str


@dataclass(frozen=True)
class Reached:
    """How the runs with one estimator reached a target.

    Attributes:
        workload: the problem and the other settings that all estimators share.
        estimator: that they were trained with.
        target: what they were to reach.
        times: by unit (`UNITS`), seeds in order; a unit that was not measured is missing.
        seeds: of these runs.
    """

    workload: Mapping[str, object]
    estimator: str
    target: Target
    times: Mapping[str, TimesToTarget]
    seeds: tuple[float, ...]


def reached(rows: pd.DataFrame) -> list[Reached]:
    """For each workload every target and every estimator, the workloads and estimators in their order.

    Targets are those that the user has named (``--target``); else, where estimators were tuned, quantiles of
    the held-out objectives that the estimators' chosen trials ended at: so they are fixed on the seeds of
    tuning, before the runs that are told of. Where nothing was tuned and nothing is named there are none.
    """
    frame = select(rows, "convergence")
    frame = frame[frame["status"].isin(["done", "diverged"])]
    tried = trials(rows)
    found = []
    for values, of_workload in frame.groupby(WORKLOAD, dropna=False, sort=False):
        workload = dict(zip(WORKLOAD, values, strict=True))
        targets = _targets(of_workload, _at(tried, workload))
        runs = {str(name): _Runs(one) for name, one in of_workload.groupby("estimator", sort=False)}
        budgets = _budgets(of_workload, list(runs.values()))
        for target in targets:
            found += [
                Reached(workload, name, target, one.times(target.objective, budgets), one.seeds)
                for name, one in runs.items()
                if one.seeds
            ]
    return found


def compared(group: Sequence[Reached], unit: str = "step") -> list[float]:
    """p-values of the restricted times against those of the first, of one workload and target.

    By exchanging within pairs of runs with the same seed, adjusted by Holm's method for the number of the
    others; NaN for the first itself, and where the seeds are not the same.
    """
    first = group[0]
    p_values = [math.nan]
    for other in group[1:]:
        paired = other.seeds == first.seeds and unit in first.times and unit in other.times
        p_values.append(
            paired_p_value(first.times[unit].restricted, other.times[unit].restricted) if paired else math.nan
        )
    return holm(p_values)


def by_target(found: Sequence[Reached]) -> Iterator[list[Reached]]:
    """Those of one workload and target together, in order."""
    groups: dict[tuple[object, ...], list[Reached]] = {}
    for one in found:
        key = (*map(str, one.workload.values()), one.target)
        groups.setdefault(key, []).append(one)
    yield from groups.values()


class _Runs:
    """The runs with one estimator on one workload."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._curves: dict[float, pd.DataFrame] = {}
        for seed, one in rows[rows["step"].notna()].groupby("seed", sort=True):
            good = one.assign(value=one["value"].where(one["status"] != "diverged"))
            curve = good.pivot_table(index="step", columns="metric", values="value", aggfunc="last")
            if OBJECTIVE in curve:
                self._curves[float(seed)] = curve[curve[OBJECTIVE].notna()].sort_index().reset_index()
        self.seeds = tuple(self._curves)

    def ends(self, unit: str) -> list[float]:
        """Where each run that was measured in this unit ended."""
        return [float(curve[unit].iloc[-1]) for curve in self._curves.values() if self._has(curve, unit)]

    def times(self, objective: float, budgets: Mapping[str, float]) -> dict[str, TimesToTarget]:
        found = {}
        for unit, budget in budgets.items():
            if all(self._has(curve, unit) for curve in self._curves.values()):
                times = [
                    first_time(curve[unit].tolist(), curve[OBJECTIVE].tolist(), objective)
                    for curve in self._curves.values()
                ]
                found[unit] = TimesToTarget(tuple(times), self._budget(unit, budget))
        return found

    def _budget(self, unit: str, steps: float) -> float:
        """All runs have the same budget of steps: in another unit it is what these take of it."""
        if unit == "step":
            return steps
        moved = [curve for curve in self._curves.values() if curve["step"].iloc[-1] > 0]
        rates = [curve[unit].iloc[-1] / curve["step"].iloc[-1] for curve in moved]
        finite = [rate for rate in rates if math.isfinite(rate) and rate > 0]
        return float(np.median(finite)) * steps if finite else math.nan

    @staticmethod
    def _has(curve: pd.DataFrame, unit: str) -> bool:
        return unit in curve and bool(curve[unit].notna().all()) and len(curve) > 0


def _budgets(rows: pd.DataFrame, runs: Sequence[_Runs]) -> dict[str, float]:
    """The steps that were asked for, or where rows do not tell those of the longest run, under each unit."""
    asked = [json.loads(text).get("steps", math.nan) for text in rows["parameters"].unique()]
    taken = [end for one in runs for end in one.ends("step")]
    known = [float(steps) for steps in (*asked, *taken) if not math.isnan(steps)]
    return dict.fromkeys(UNITS, max(known, default=math.nan))


def _targets(runs: pd.DataFrame, tried: pd.DataFrame) -> list[Target]:
    if given := _named(runs):
        return [Target(objective, f"{objective:g}") for objective in given]
    if tried.empty:
        return []
    chosen = tried[~tried["diverged"].astype(bool)].sort_values("tuning_objective", kind="stable")
    ends = chosen.groupby("estimator")["heldout_objective"].last().dropna()
    if ends.empty:
        return []
    named = [(float(ends.quantile(share)), name) for share, name in QUANTILES]
    return [Target(value, name) for value, name in dict(named).items()]  # of equal ones the last


def _named(runs: pd.DataFrame) -> list[float]:
    """Targets that the user has given, as the settings of the cases tell."""
    for text in runs["parameters"].drop_duplicates():
        if given := json.loads(text).get("targets"):
            return [float(objective) for objective in given]
    return []


def _at(table: pd.DataFrame, workload: Mapping[str, object]) -> pd.DataFrame:
    kept = pd.Series(True, index=table.index)
    for column, value in workload.items():
        kept &= table[column].isna() if pd.isna(value) else table[column] == value
    return table[kept]
