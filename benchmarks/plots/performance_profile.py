"""Over several problems: how often each estimator is within a factor of the best.

Dolan & Moré (2002), "Benchmarking optimization software with performance profiles", Mathematical
Programming 91, 201–213. Here the performance measure is the work-normalized variance, variance × seconds,
which is the time to reach a given precision up to a constant that all estimators share.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rows.text import shorten
from ..rows.wide import at_default_samples, family, measured, without_negligible
from .axes import log_axis
from .sheet import legend_of, sheet
from .style import Style, literal, styles_of, themed

WORK = "work_normalized_variance"
_SETTINGS = ["latent_dim", "batch_size", "device", "dtype", "num_samples"]


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """problem × estimator -> r ≥ 1, work-normalized variance over the problem's best; inf: not measured.

    Each problem is taken at its last step, and at the settings that the most estimators share. Deterministic
    estimators and those of another objective are left out; empty where there are fewer than two problems or
    fewer than two estimators.
    """
    points = measured(rows, "variance", ["variance", "seconds", WORK])
    points[WORK] = points[WORK].fillna(points["variance"] * points["seconds"])
    points, _ = without_negligible(points[points[WORK] > 0].reset_index(drop=True), "variance")
    if points.empty:
        return pd.DataFrame()
    points = _comparable(points)
    points = points[_last_steps(points)]
    kept = []
    for _, of_problem in points.groupby("problem", sort=False):
        groups = [one for _, one in at_default_samples(of_problem).groupby(_SETTINGS, dropna=False)]
        kept.append(max(groups, key=lambda one: one["estimator"].nunique()))
    table = pd.concat(kept).pivot_table(index="problem", columns="estimator", values=WORK, aggfunc="last")
    table = table.reindex(list(dict.fromkeys(points["problem"])))  # k=2 before k=10
    if min(table.shape) < 2:
        return pd.DataFrame()
    return table.div(table.min(axis=1), axis=0).fillna(np.inf)


def _comparable(points: pd.DataFrame) -> pd.DataFrame:
    """The points of the objective that the most estimators among them share, the ELBO where equally many."""
    counts = points.groupby("objective")["estimator"].nunique()
    best = min(counts.index, key=lambda name: (-counts[name], name != "elbo", name))
    return points[points["objective"] == best]


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


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """ρ(τ), the share of problems on which an estimator's variance × time is within τ times the best."""
    table = ratios(rows)
    if table.empty:
        return None
    styles, order = styles_of(table.columns), ranked(table)
    figure, (axes,) = sheet(
        1,
        1,
        3.9,
        "Performance profiles",
        f"{len(table)} problems",
        [
            "Height at τ = 1: share of problems on which the estimator is the best; higher is better.",
            f"Problems: {', '.join(shorten(name, 40) for name in table.index[:8])}"
            f"{', …' if len(table) > 8 else ''}.",
        ],
        legend_of({name: styles[name] for name in order}),
    )
    right = reach(table)
    log_axis(axes, "x", 0.96, right)
    for index, name in enumerate(order):
        _line(axes, table[name], styles[name], name, right, index)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("τ: variance × time within this factor of the best")
    axes.set_ylabel(literal("share of problems, ρ(τ)"))
    return figure


def reach(table: pd.DataFrame) -> float:
    """Right end of the axis: a little beyond the last rise of any profile."""
    return max(1.3 * float(table.where(np.isfinite(table)).max().max()), 2.0)


def _line(axes: Axes, one: pd.Series, style: Style, name: str, right: float, index: int) -> None:
    tau, rho = profile(one)
    axes.step(
        [*tau, right],
        [*rho, rho[-1]],
        where="post",
        color=style.color,
        linestyle=style.linestyle,
        label=f"{name} line",
        zorder=2 + 0.01 * index,
    )
    axes.plot(
        tau,
        rho,
        linestyle="none",
        marker=style.marker,
        color=style.color,
        markersize=5.5,
        label=name,
        zorder=3,
    )
