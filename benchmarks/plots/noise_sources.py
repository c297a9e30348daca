"""Monte Carlo noise beside minibatch noise: when less of the first stops paying."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import columns_for, split
from ..rows.text import number, short_names
from ..rows.wide import PANELS, at_default, measured
from .axes import intervals, log_axis, log_limits, markers
from .sheet import Legend, sheet
from .style import FAINT, INK, Style, literal, styles_of, themed
from .variance import METRIC

MINIBATCH = "minibatch_variance"


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance of the gradient by drawing z (marker) and by the choice of the batch (tick).

    The two add up to the variance of a stochastic gradient in training. The number of samples at which they
    are equal, S · V / V_minibatch, assumes V ∝ 1/S.
    """
    points, zero = at_default(measured(rows, "variance", [METRIC, MINIBATCH]), METRIC)
    points = points[points[MINIBATCH] > 0].reset_index(drop=True)
    if points.empty:
        return None
    styles, names = styles_of(points["estimator"]), short_names(points["estimator"], 32)
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    most = points.groupby("problem")["estimator"].nunique().max()
    columns = columns_for(panels, points["step"].nunique())
    figure, grid = sheet(
        len(panels),
        columns,
        0.95 + 0.29 * most,
        "Two sources of noise: the samples z, and the choice of the batch",
        subtitle,
        [
            "Bars: 95% intervals. At the right: the number of samples S at which the two are equal, if the "
            "variance falls as 1/S; more than that hardly pays.",
            warnings_note(points, METRIC),
            negligible_note(zero, "variance"),
        ],
        Legend(
            [
                Line2D([], [], color=FAINT, marker="o", linestyle="none"),
                Line2D([], [], color=INK, marker="|", markersize=11, markeredgewidth=1.8, linestyle="none"),
            ],
            ["Monte Carlo: draws of z (colour of the estimator)", "minibatch: choice of the data"],
        ),
    )
    order: list[str] = []
    for index, (panel, axes) in enumerate(zip(panels, grid, strict=True)):
        problem = panel.points["problem"].iloc[0]
        of_problem = points[points["problem"] == problem]
        first = index == 0 or problem != panels[index - 1].points["problem"].iloc[0]
        if first:
            ranked = panel.points.sort_values(METRIC, ascending=False)["estimator"]
            order = list(dict.fromkeys([*ranked, *of_problem["estimator"]]))
        _limits(axes, of_problem)
        _panel(axes, panel.points, order, styles)
        axes.set_title(literal(panel.title))
        axes.set_xlabel(f"variance of the batch-mean gradient{unit(rows, METRIC)}")
        left = index % columns == 0 or first
        axes.set_yticks(range(len(order)), [literal(names[name]) if left else "" for name in order])
    return figure


def _limits(axes: Axes, points: pd.DataFrame) -> None:
    ends = [log_limits(points, metric) for metric in (METRIC, MINIBATCH)]
    log_axis(axes, "x", min(low for low, _ in ends), max(high for _, high in ends), most=6)


def _panel(axes: Axes, points: pd.DataFrame, order: list[str], styles: dict[str, Style]) -> None:
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    grey = Style(INK, "|", "-")
    for name, one in points.groupby("estimator"):
        y = [order.index(name)] * len(one)
        intervals(axes, "x", y, one, MINIBATCH, grey, width=1.0)
        axes.plot(
            one[MINIBATCH], y, linestyle="none", marker="|", markersize=11, markeredgewidth=1.8, color=INK,
            label=f"{name} minibatch", zorder=2.7,
        )  # fmt: skip
        intervals(axes, "x", y, one, METRIC, styles[name], width=2.2)
        markers(axes, one[METRIC], y, styles[name], name, one[f"{METRIC}_reason"] != "", size=7.5)
        first = one.iloc[0]
        equal = first["num_samples"] * first[METRIC] / first[MINIBATCH]
        axes.annotate(
            f"S = {number(equal, 2)}" if equal >= 1 else "S < 1",
            (1.015, y[0]),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=FAINT,
        )
