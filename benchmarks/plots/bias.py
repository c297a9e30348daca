"""How much bias the measurement leaves room for."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter

from ..rows.notes import negligible_note, warnings_note
from ..rows.panels import columns_for, split
from ..rows.text import percent, short_names
from ..rows.wide import PANELS, at_default, measured
from .axes import log_axis, log_limits, markers
from .sheet import sheet
from .style import FAINT, Style, literal, styles_of, themed

BOUND = "bias_bound"


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Relative bias of the gradient: estimate and 99% upper bound, in percent, the tightest bound on top."""
    points, zero = at_default(measured(rows, "variance", [BOUND, "bias"]), BOUND)
    if points.empty:
        return None
    styles, names = styles_of(points["estimator"]), short_names(points["estimator"], 32)
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    most = points.groupby("problem")["estimator"].nunique().max()
    columns = columns_for(panels, points["step"].nunique())
    figure, grid = sheet(
        len(panels),
        columns,
        0.8 + 0.27 * most,
        "Bias of the gradient estimate: 99% upper bounds",
        subtitle,
        [
            "Cap: the 99% upper bound; the line is what it leaves possible.",
            "Marker: the estimate, where the axis reaches so low.",
            warnings_note(points, BOUND),
            negligible_note(zero, "bound"),
        ],
    )
    for index, (panel, axes) in enumerate(zip(panels, grid, strict=True)):
        of_problem = points[points["problem"] == panel.points["problem"].iloc[0]]
        worst = of_problem.groupby("estimator")[BOUND].max().sort_values(ascending=False, kind="stable")
        order = list(worst.index)
        _panel(axes, panel.points, order, styles)
        axes.set_title(literal(panel.title))
        axes.set_xlabel("bias relative to the norm of the gradient")
        same = (
            index % columns and panels[index - 1].points["problem"].iloc[0] == of_problem["problem"].iloc[0]
        )
        axes.set_yticks(range(len(order)), ["" if same else literal(names[name]) for name in order])
    return figure


def _panel(axes: Axes, points: pd.DataFrame, order: list[str], styles: dict[str, Style]) -> None:
    low, high = log_limits(
        points.assign(**{f"{BOUND}_low": points["bias"], f"{BOUND}_high": points[BOUND]}), BOUND
    )
    log_axis(axes, "x", low / 3, high, most=4)
    ticks = axes.xaxis.get_majorticklocs()
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * tick:g}%" for tick in ticks]))
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    for name, one in points.groupby("estimator"):
        style, y, bound, bias = styles[name], order.index(name), one[BOUND].iloc[0], one["bias"].iloc[0]
        axes.hlines(y, low / 3, bound, color=style.color, linewidth=2.2, zorder=2.5)
        axes.plot(
            [bound],
            [y],
            marker="|",
            markersize=13,
            markeredgewidth=2.4,
            color=style.color,
            label=f"{name} bound",
        )
        if bias > low / 3:
            markers(axes, bias, y, style, name, one[f"{BOUND}_reason"] != "", size=7.5)
        axes.annotate(
            f"≤ {percent(bound)}",
            (1.015, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=FAINT,
        )
