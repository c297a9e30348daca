"""The figure of a reproduction."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...plots.sheet import Legend, legend_of, sheet
from ...plots.style import FAINT, Style, literal, styles_of, themed
from .result import Curve, Panel, Reproduction

_HEIGHT = 2.6


@themed
def draw(result: Reproduction) -> Figure | None:
    """Measured values as points with 95% intervals, exact ones as lines."""
    curves = [curve for panel in result.panels for curve in panel.curves]
    styles = styles_of(dict.fromkeys(curve.label for curve in curves))
    measured = {curve.label for curve in curves if not curve.exact}
    lines = {curve.label for curve in curves if curve.exact}
    colors = Counter(styles[label].color for label in lines)
    figure, grid = sheet(
        len(result.panels),
        min(3, len(result.panels)),
        _HEIGHT,
        result.name,
        result.source,
        [result.setting],
        _legend(styles, measured, result.lines if lines else ""),
    )
    # Lines have no markers, so that those of one colour are told apart by their dashes.
    solid = {label: replace(s, linestyle="-") if colors[s.color] == 1 else s for label, s in styles.items()}
    for panel, axes in zip(result.panels, grid, strict=True):
        _draw_panel(axes, panel, styles, solid)
    return figure


def _legend(styles: dict[str, Style], measured: Collection[str], lines: str) -> Legend:
    """Markers of what was measured, then lines, of what is a line alone in its own colour."""
    line = functools.partial(Line2D, [], [], linewidth=1.2)
    alone = [(line(color=styles[label].color), label) for label in styles if label not in measured]
    extra = [*alone, (line(color=FAINT), lines)] if lines else alone
    return legend_of({label: styles[label] for label in styles if label in measured}, extra, lines=False)


def _draw_panel(axes: Axes, panel: Panel, styles: dict[str, Style], of_lines: dict[str, Style]) -> None:
    lines = {curve.label for curve in panel.curves if curve.exact}
    for curve in panel.curves:
        if curve.exact:
            _draw_line(axes, curve, of_lines[curve.label])
        else:
            _draw_points(axes, curve, styles[curve.label], joined=curve.label not in lines)
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    if not panel.log_x and all(float(x).is_integer() for curve in panel.curves for x in curve.x):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_title(literal(panel.title))
    axes.set_xlabel(literal(panel.xlabel))
    axes.set_ylabel(literal(panel.ylabel))


def _draw_line(axes: Axes, curve: Curve, style: Style) -> None:
    axes.plot(curve.x, curve.y, color=style.color, linestyle=style.linestyle, linewidth=1.2, alpha=0.8)


def _draw_points(axes: Axes, curve: Curve, style: Style, joined: bool) -> None:
    if curve.low is not None and curve.high is not None:
        axes.vlines(curve.x, curve.low, curve.high, color=style.color, linewidth=1.4)
    axes.plot(
        curve.x,
        curve.y,
        color=style.color,
        marker=style.marker,
        markersize=4.5,
        linestyle=style.linestyle if joined else "none",
        linewidth=0.8,
    )
