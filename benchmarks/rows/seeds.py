"""Training curves over seeds: their mean, its interval, and curves against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit


@dataclass(frozen=True)
class Curve:
    """Seeds along steps or seconds, their mean and the ends of its 95% interval; nats per datum."""

    x: np.ndarray
    each: np.ndarray  # (seeds, len(x))
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, each: np.ndarray) -> Curve:
        """The curve of these seeds at these places."""
        return cls(x, each, *mean_interval(each))


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the first axis and its 95% interval by Student's t; NaN ends for a single seed."""
    array = np.asarray(values, dtype=float)
    count, mean = len(array), array.mean(axis=0)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stdtrit(count - 1, 0.975) * array.std(axis=0, ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def by_seed(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """step × seed -> value of a metric; NaN where a seed has diverged."""
    one = rows[(rows["metric"] == metric) & rows["step"].notna()]
    one = one.assign(value=one["value"].where(one["status"] != "diverged"))
    return one.pivot_table(
        index="step", columns=one["seed"].fillna(-1), values="value", aggfunc="last", dropna=False
    )


def against_steps(values: pd.DataFrame) -> Curve:
    """The mean curve, up to where a seed diverges or was not measured."""
    whole = values[values.notna().all(axis=1)]
    return Curve.of(whole.index.to_numpy(dtype=float), whole.to_numpy().T)


def against_seconds(values: pd.DataFrame, seconds: pd.DataFrame, count: int = 200) -> Curve:
    """The mean curve along training seconds, the seeds interpolated to a logarithmic grid."""
    nowhere = Curve.of(np.empty(0), np.empty((1, 0)))
    curves = []
    for seed in values.columns.intersection(seconds.columns):
        both = pd.DataFrame({"x": seconds[seed], "y": values[seed]}).dropna().sort_values("x")
        curves.append(both[both["x"] > 0])
    if not curves or len(curves) < values.shape[1] or any(len(curve) < 2 for curve in curves):
        return nowhere
    start, end = max(c["x"].iloc[0] for c in curves), min(c["x"].iloc[-1] for c in curves)
    if start >= end:
        return nowhere
    grid = np.geomspace(start, end, count)
    return Curve.of(grid, np.array([np.interp(grid, c["x"], c["y"]) for c in curves]))
