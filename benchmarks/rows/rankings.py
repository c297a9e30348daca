"""Who is ahead: the Pareto front of variance and time, and performance profiles over problems.

Dolan & Moré (2002), "Benchmarking optimization software with performance profiles", Mathematical
Programming 91, 201–213. Here the performance measure is the work-normalized variance, variance × seconds,
which is the time to reach a given precision up to a constant that all estimators share.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...estimators.kl_weight import is_elbo, split_objective
from .bias import without_wrong
from .wide import at_default, at_default_samples, family, measured, without_negligible

_WORK = "work_normalized_variance"
_TIMES = ["seconds", "seconds_low", "seconds_high"]
_SETTINGS = ["latent_dim", "batch_size", "device", "dtype", "num_samples"]


def cost_points(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The cases whose variance and time were both measured, seconds turned into milliseconds; none is wrong.

    Returns:
        the points at the default settings, and the estimators left out there for a variance of about zero.
    """
    points = without_wrong(measured(rows, "variance", ["variance", "seconds"]), rows)
    points, zero = at_default(points[points["seconds"] > 0].reset_index(drop=True), "variance")
    points[_TIMES] *= 1000
    return points.rename(columns={time: f"milli{time}" for time in _TIMES}), zero


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats in both milliseconds and variance, fastest first."""
    ordered = points.sort_values(["milliseconds", "variance"], kind="stable")
    best = ordered["variance"].cummin()
    return ordered[(ordered["variance"] == best) & ~best.duplicated()]


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """problem × estimator -> r ≥ 1, work-normalized variance over the problem's best; inf: not measured.

    Each problem is taken at its last step, and at the settings that the most estimators share. Deterministic
    estimators, those of another objective and those whose mean is wrong are left out; empty where there are
    fewer than two problems or fewer than two estimators.
    """
    points = without_wrong(measured(rows, "variance", ["variance", "seconds", _WORK]), rows)
    points[_WORK] = points[_WORK].fillna(points["variance"] * points["seconds"])
    points, _ = without_negligible(points[points[_WORK] > 0].reset_index(drop=True), "variance")
    if points.empty:
        return pd.DataFrame()
    points = _comparable(points)
    points = points[_last_steps(points)]
    kept = []
    for _, of_problem in points.groupby("problem", sort=False):
        groups = [one for _, one in at_default_samples(of_problem).groupby(_SETTINGS, dropna=False)]
        kept.append(max(groups, key=lambda one: one["estimator"].nunique()))
    table = pd.concat(kept).pivot_table(index="problem", columns="estimator", values=_WORK, aggfunc="last")
    table = table.reindex(list(dict.fromkeys(points["problem"])))  # k=2 before k=10
    if min(table.shape) < 2:
        return pd.DataFrame()
    return table.div(table.min(axis=1), axis=0).fillna(np.inf)


def _comparable(points: pd.DataFrame) -> pd.DataFrame:
    """The points of the objective that the most estimators among them share, the ELBO where equally many.

    Of whatever weight of the KL, which is the problem's.
    """
    objectives = points["objective"].map(lambda name: split_objective(name)[0])
    counts = points.groupby(objectives)["estimator"].nunique()
    best = min(counts.index, key=lambda name: (-counts[name], not is_elbo(name), name))
    return points[objectives == best]


def _last_steps(points: pd.DataFrame) -> pd.Series:
    last = points["step"].groupby(points["problem"].map(family)).transform("max")
    return (points["step"] == last) | points["step"].isna()


def profile(of_estimator: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Corners of ρ(τ) = share of problems with r ≤ τ: the values τ at which it rises, and ρ there.

    >>> tau, rho = profile(pd.Series([1.0, 3.0, np.inf, 3.0]))
    >>> tau.tolist(), rho.tolist()
    ([1.0, 3.0], [0.25, 0.75])
    """
    reached, counts = np.unique(of_estimator[np.isfinite(of_estimator)], return_counts=True)
    shares = np.cumsum(counts) / len(of_estimator)
    if len(reached) and reached[0] == 1:
        return reached, shares
    return np.concatenate([[1.0], reached]), np.concatenate([[0.0], shares])


def ranked(table: pd.DataFrame) -> list[str]:
    """The estimators, those with the largest area under ρ over log τ first."""
    worst = table.where(np.isfinite(table)).max().max()
    area = np.log(table.clip(upper=2 * worst)).mean().sort_values(kind="stable")
    return [str(name) for name in area.index]


def reach(table: pd.DataFrame) -> float:
    """Right end of the axis: a little beyond the last rise of any profile."""
    return max(1.3 * float(table.where(np.isfinite(table)).max().max()), 2.0)
