"""What tuning has found, from long rows: the trials of each case and what the best of them is worth."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..statistics.best_of import expected_best, expected_best_interval
from .wide import KEYS, normalized

#: What is compared: estimators differ, all else is the same.
WORKLOAD = [key for key in KEYS if key not in ("estimator", "objective", "step")]
_TRIAL = r"trial (\d+)$"
_OBJECTIVES = ("tuning_objective", "heldout_objective")


@dataclass(frozen=True)
class BestOf:
    """The expected best of k = 1, ..., N trials with the ends of its 95% bootstrap interval, nats a datum."""

    k: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a trial.

    Returns:
        the workload, ``estimator``, ``trial``, ``learning_rate``, ``diverged``, and of ``tuning_objective``
        and ``heldout_objective`` where they began (``…_begin``) and ended. A trial that diverged has ended
        where it began: it leaves nothing better.
    """
    frame = normalized(rows)
    number = frame["parameter"].str.extract(_TRIAL)[0]
    frame = frame[(frame["benchmark"] == "convergence") & number.notna()]
    frame = frame.assign(trial=number[frame.index].astype(int))
    keys = [*WORKLOAD, "estimator", "trial"]
    lines = [
        {**dict(zip(keys, values, strict=True)), **_ends(one)}
        for values, one in frame.groupby(keys, dropna=False, sort=False)
    ]
    own = [f"{name}{end}" for name in _OBJECTIVES for end in ("_begin", "")]
    table = pd.DataFrame(lines, columns=[*keys, "learning_rate", "diverged", *own])
    return table.astype(frame[WORKLOAD].dtypes.to_dict())


def _ends(one: pd.DataFrame) -> dict[str, float]:
    diverged = bool((one["status"] == "diverged").any())
    ends: dict[str, float] = {
        "learning_rate": json.loads(one["parameters"].iloc[0]).get("learning_rate", float("nan")),
        "diverged": diverged,
    }
    for metric in _OBJECTIVES:
        curve = one[one["metric"] == metric].sort_values("step", kind="stable")["value"]
        ends[f"{metric}_begin"] = curve.iloc[0]
        ends[metric] = curve.iloc[0 if diverged else -1]
    return ends


def best_of(found: pd.DataFrame) -> BestOf:
    """Of the trials of one estimator."""
    scores = found["tuning_objective"].to_numpy()
    low, high = expected_best_interval(scores)
    return BestOf(np.arange(1, len(scores) + 1), expected_best(scores), low, high)
