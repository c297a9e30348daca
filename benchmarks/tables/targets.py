"""Times to targets and tuning, a line a case, unrounded."""

from __future__ import annotations

import math

import pandas as pd

from ..rows.targets import UNITS, Reached, by_target, compared, reached
from ..rows.tuning import WORKLOAD, best_of, trials
from ..rows.wide import KEYS, ordered

#: Of the targets of a workload the one that a single column tells of.
_TYPICAL = "median"
_FEW = 5  # trials
_ENDS = ("", "_low", "_high")
_NAMES = {"step": "steps"} | {unit: unit for unit in UNITS[1:]}


def target_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """How the runs with each estimator reached each target.

    Columns: the settings, ``target`` (its name) and ``target_objective``; ``reached`` of ``runs``; of each
    unit u (``steps``, ``evaluations``, ``seconds``) the median time ``u`` with its interval (infinite: beyond
    the budget), ``u_budget`` and the restricted mean ``u_mean``; ``versus``, and the ``p_value`` of the steps
    against those of that estimator, adjusted by Holm's method.
    """
    lines = []
    for group in by_target(reached(rows)):
        for one, p in zip(group, compared(group), strict=True):
            lines.append({**_line(one), "versus": group[0].estimator, "p_value": p})
    columns = [*WORKLOAD, "estimator", "target", "target_objective", "reached", "runs"]
    columns += [f"{_NAMES[unit]}{end}" for unit in UNITS for end in (*_ENDS, "_mean", "_budget")]
    table = pd.DataFrame(lines, columns=[*columns, "versus", "p_value"])
    return table.assign(note="")


def _line(one: Reached) -> dict[str, object]:
    line: dict[str, object] = {
        **one.workload,
        "estimator": one.estimator,
        "target": one.target.name,
        "target_objective": one.target.objective,
    }
    for unit, times in one.times.items():
        name, (low, high) = _NAMES[unit], times.median_interval()
        line |= {name: times.median, f"{name}_low": low, f"{name}_high": high}
        line |= {f"{name}_mean": times.restricted_mean, f"{name}_budget": times.budget}
        line |= {"reached": times.reached, "runs": len(times.times)}
    return line


def typical(table: pd.DataFrame) -> pd.DataFrame:
    """Of each workload the lines of one target: the median of what tuning has reached, or the last named."""
    named = table.groupby(WORKLOAD, dropna=False, sort=False)["target"]
    chosen = named.transform(lambda names: _TYPICAL if _TYPICAL in set(names) else names.iloc[-1])
    return table[table["target"] == chosen]


def tuning_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """What tuning has found: of each estimator the rate that was chosen, and what trials are worth.

    The expected best of 1, of 5 and of all trials are ``best_1``, ``best_5`` and ``best_all`` with their
    intervals; ``lost`` of the ``trials`` diverged.
    """
    lines = []
    for values, one in trials(rows).groupby([*WORKLOAD, "estimator"], dropna=False, sort=False):
        curve = best_of(one)
        good = one[~one["diverged"].astype(bool)]
        best = good.sort_values("tuning_objective", kind="stable")["learning_rate"]
        line = dict(zip([*WORKLOAD, "estimator"], values, strict=True))
        line |= {"trials": len(one), "lost": len(one) - len(good)}
        line |= {"learning_rate": best.iloc[-1] if len(best) else math.nan}
        for name, k in (("best_1", 1), ("best_5", min(_FEW, len(one))), ("best_all", len(one))):
            points = (curve.value[k - 1], curve.low[k - 1], curve.high[k - 1])
            line |= dict(zip((f"{name}{end}" for end in _ENDS), points, strict=True))
        lines.append(line)
    columns = [*WORKLOAD, "estimator", "trials", "lost", "learning_rate"]
    columns += [f"{name}{end}" for name in ("best_1", "best_5", "best_all") for end in _ENDS]
    table = pd.DataFrame(lines, columns=columns).assign(note="")
    return _best_first(table.astype({"num_samples": float}), "best_all")


def _best_first(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    if table.empty:
        return table
    table = ordered(table)
    place = table.groupby([key for key in KEYS if key in WORKLOAD], dropna=False, sort=False).ngroup()
    order = pd.DataFrame({"place": place, "value": -table[metric]})
    return table.loc[order.sort_values(["place", "value"], kind="stable").index].reset_index(drop=True)
