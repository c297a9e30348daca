"""Variance against a setting, such as S or D: what the two figures share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import columns_for, split
from .axes import intervals, log_axis, log_limits, markers, measured_ticks
from .sheet import legend_of, sheet
from .style import FAINT, Style, literal, styles_of
from .variance import METRIC

_MOST_TICKS = 8


def draw_against(
    rows: pd.DataFrame,
    points: pd.DataFrame,
    zero: list[str],
    setting: str,
    by: list[str],
    title: str,
    label: str,
    guide: str = "",
) -> Figure | None:
    """Log–log lines of the variance against ``setting``, one an estimator.

    Args:
        rows: the rows that the points come from.
        points: cases, one a line.
        zero: estimators left out because their variance is about zero.
        setting: column of the horizontal axis.
        by: columns that panels differ in; a panel with a single setting is dropped.
        title: of the figure.
        label: of the horizontal axis.
        guide: what faint lines of slope −1 mean; "" for none.
    """
    several = points.groupby(by, dropna=False)[setting].transform("nunique") > 1
    points = points[several]
    if points.empty:
        return None
    subtitle, panels = split(points, by)
    styles = styles_of(points["estimator"])
    # In the order of the lines at their right end, so that the legend reads like the panel.
    last = panels[0].points.sort_values(METRIC, ascending=False)
    last = last[last[setting] == last[setting].max()]
    ranked = {n: styles[n] for n in dict.fromkeys([*last["estimator"], *points["estimator"]])}
    line = Line2D([], [], color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
    figure, grid = sheet(
        len(panels),
        columns_for(panels, points["step"].nunique()),
        3.9,
        title,
        subtitle,
        [
            "Bars: 95% intervals; points that share a place are set apart a little.",
            warnings_note(points, METRIC),
            negligible_note(zero, "variance"),
        ],
        legend_of(ranked, [(line, guide)] if guide else []),
    )
    for panel, axes in zip(panels, grid, strict=True):
        of_problem = points[points["problem"] == panel.points["problem"].iloc[0]]
        log_axis(axes, "y", *log_limits(of_problem, METRIC))
        _panel(axes, panel.points, setting, ranked)
        if guide:
            _guide(axes)
        axes.set_title(literal(panel.title))
        axes.set_xlabel(label)
        axes.set_ylabel(f"variance, tr Cov(ĝ){unit(rows, METRIC)}")
    return figure


def _panel(axes: Axes, points: pd.DataFrame, setting: str, styles: dict[str, Style]) -> None:
    if points[setting].nunique() <= _MOST_TICKS:
        measured_ticks(axes, "x", points[setting])
    else:
        log_axis(axes, "x", *log_limits(points, setting))
    apart = min(0.007, 0.04 / len(styles))
    for index, (name, style) in enumerate(styles.items()):
        one = points[points["estimator"] == name].sort_values(setting)
        if one.empty:
            continue
        left, right = axes.get_xlim()
        x = one[setting] * (right / left) ** (apart * (index - (len(styles) - 1) / 2))
        axes.plot(
            x, one[METRIC], color=style.color, linestyle=style.linestyle, label=f"{name} line", zorder=2
        )
        intervals(axes, "y", x, one, METRIC, style)
        markers(axes, x, one[METRIC], style, name, one[f"{METRIC}_reason"] != "")


def _guide(axes: Axes) -> None:
    """Faint parallel lines of slope −1, a factor of ten apart."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x = np.array([left, right])
    decades = np.log10(right / left)
    for exponent in np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high) + decades) + 1):
        axes.plot(
            x,
            10**exponent * left / x,
            color=FAINT,
            linewidth=0.7,
            linestyle=(0, (2, 2)),
            alpha=0.5,
            zorder=1,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
