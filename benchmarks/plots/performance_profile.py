"""Over several problems: how often each estimator is within a factor of the best."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rows.rankings import profile, ranked, ratios, reach
from ..rows.text import shorten
from .axes import log_axis
from .sheet import legend_of, sheet
from .style import Style, literal, styles_of, themed


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
