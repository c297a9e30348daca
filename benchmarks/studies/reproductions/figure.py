"""The figure of a reproduction."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...plots.sheet import Legend, legend_of, sheet
from ...plots.style import FAINT, Style, literal, styles_of, themed
from .result import Curve, Panel, Reproduction

_HEIGHT = 2.6


@themed
def draw(result: Reproduction) -> Figure | None:
    """Measured values as points with 95% intervals, exact ones as lines."""
    labels = [curve.label for panel in result.panels for curve in panel.curves]
    styles = styles_of(dict.fromkeys(labels))
    exact = any(curve.exact for panel in result.panels for curve in panel.curves)
    figure, grid = sheet(
        len(result.panels),
        min(3, len(result.panels)),
        _HEIGHT,
        result.name,
        result.source,
        [result.setting],
        _legend(styles, result.lines if exact else ""),
    )
    for panel, axes in zip(result.panels, grid, strict=True):
        _draw_panel(axes, panel, styles)
    return figure


def _legend(styles: dict[str, Style], lines: str) -> Legend:
    line = Line2D([], [], color=FAINT, linewidth=1.2)
    extra = [(line, lines)] if lines else []
    return legend_of(styles, extra, lines=False)


def _draw_panel(axes: Axes, panel: Panel, styles: dict[str, Style]) -> None:
    lines = {curve.label for curve in panel.curves if curve.exact}
    for curve in panel.curves:
        _draw_curve(axes, curve, styles[curve.label], joined=curve.label not in lines)
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    axes.set_title(literal(panel.title))
    axes.set_xlabel(literal(panel.xlabel))
    axes.set_ylabel(literal(panel.ylabel))


def _draw_curve(axes: Axes, curve: Curve, style: Style, joined: bool) -> None:
    if curve.exact:
        axes.plot(curve.x, curve.y, color=style.color, linewidth=1.2, alpha=0.8)
        return
    if curve.low is not None and curve.high is not None:
        axes.vlines(curve.x, curve.low, curve.high, color=style.color, linewidth=1.4)
    line = style.linestyle if joined else "none"
    axes.plot(
        curve.x,
        curve.y,
        color=style.color,
        marker=style.marker,
        markersize=4.5,
        linestyle=line,
        linewidth=0.8,
    )
