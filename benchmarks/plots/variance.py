"""Which estimator is noisiest: total variance of the gradient, one panel a problem and training step."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import columns_for, split
from ..rows.text import listed, short_names
from ..rows.wide import PANELS, at_default, measured, unmeasured
from .axes import beside, intervals, log_axis, log_limits, markers
from .sheet import sheet
from .style import Style, literal, styles_of, themed

METRIC = "variance"


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Dot plot of the total variance tr Cov(ĝ) of the batch-mean gradient, with 95% intervals.

    Panels of one problem share their axis and the order of the first. S is the smallest that the most
    estimators share.
    """
    points, zero = at_default(measured(rows, "variance", [METRIC]), METRIC)
    if points.empty:
        return None
    styles, names = styles_of(points["estimator"]), short_names(points["estimator"], 32)
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    most = points.groupby("problem")["estimator"].nunique().max()
    columns = columns_for(panels, points["step"].nunique())
    missing = unmeasured(rows, "variance")
    figure, grid = sheet(
        len(panels),
        columns,
        0.8 + 0.27 * most,
        "Variance of the gradient estimate",
        subtitle,
        [
            "Bars: 95% intervals.",
            warnings_note(points, METRIC),
            negligible_note(zero, "variance"),
            f"Not measured: {listed(missing)}." if missing else "",
        ],
    )
    order: list[str] = []
    for index, (panel, axes) in enumerate(zip(panels, grid, strict=True)):
        problem = panel.points["problem"].iloc[0]
        of_problem = points[points["problem"] == problem]
        if index == 0 or problem != panels[index - 1].points["problem"].iloc[0]:
            ranked = panel.points.sort_values(METRIC, ascending=False)["estimator"]
            order = list(dict.fromkeys([*ranked, *of_problem["estimator"]]))
        log_axis(axes, "x", *log_limits(of_problem, METRIC), most=6)
        _panel(axes, panel.points, order, styles)
        axes.set_title(literal(panel.title))
        axes.set_xlabel(f"variance, tr Cov(ĝ){unit(rows, METRIC)}")
        left = index % columns == 0 or problem != panels[index - 1].points["problem"].iloc[0]
        axes.set_yticks(range(len(order)), [literal(names[name]) for name in order] if left else [])
        if not left:
            axes.set_yticks(range(len(order)), [""] * len(order))
    return figure


def _panel(axes: Axes, points: pd.DataFrame, order: list[str], styles: dict[str, Style]) -> None:
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    for name, one in points.groupby("estimator"):
        y = [order.index(name)] * len(one)
        intervals(axes, "x", y, one, METRIC, styles[name], width=2.2)
        markers(axes, one[METRIC], y, styles[name], name, one[f"{METRIC}_reason"] != "", size=7.5)
        beside(axes, y[0], one[METRIC].iloc[0])
