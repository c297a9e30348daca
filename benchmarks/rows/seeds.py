"""Training curves over seeds: their mean, its interval, and curves against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .wide import select

OBJECTIVE = "heldout_objective"
#: Seeds for a band: with fewer, Student's t makes it wider than the seeds lie apart.
BAND = 4
_TRANSIENT = 0.2  # share of the training whose values need not fit into a panel


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


def training_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out objectives and seconds of the estimators that training was evaluated for."""
    frame = select(rows, "convergence")
    found = frame[(frame["metric"] == OBJECTIVE) & frame["value"].notna()]
    return frame[frame["estimator"].isin(found["estimator"]) & frame["metric"].isin([OBJECTIVE, "seconds"])]


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


def limits(curves: list[Curve]) -> tuple[float, float]:
    """Ends of the vertical axis: all that comes after the first, steep fifth of the training."""
    curves = [curve for curve in curves if len(curve.x)]
    if not curves:
        return -1.0, 0.0
    last = max(curve.x[-1] for curve in curves)
    late = [curve.mean[curve.x >= min(_TRANSIENT * last, curve.x[-1])] for curve in curves]
    high = max(float(np.max(curve.mean)) for curve in curves)
    low = float(np.min(np.concatenate(late)))
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
