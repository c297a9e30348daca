"""What a low variance costs: variance against the time of a gradient, and who is on the Pareto front."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import split
from ..rows.rankings import cost_points, pareto_front
from ..rows.text import short_names
from ..rows.wide import PANELS
from .axes import intervals, log_axis, log_limits, markers
from .labels import Segment, label_points
from .sheet import Legend, legend_of, sheet
from .style import FAINT, INK, Style, literal, styles_of, themed
from .variance import METRIC

_MOST_NAMES = 12  # in a panel; where there are more, only those on the front are named beside their points
_ISO = {"color": FAINT, "linewidth": 0.7, "linestyle": (0, (1, 2.5))}


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against milliseconds a training-step gradient, log–log, at the default S.

    The step line is the Pareto front: no estimator is at once faster and less noisy than one on it. Along a
    dotted line the work-normalized variance, variance × time, is the same. Where a panel has many estimators,
    those on the front are named beside their points, all of them in the legend.
    """
    points, zero = cost_points(rows)
    if points.empty:
        return None
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    styles, names = styles_of(points["estimator"]), short_names(points["estimator"], 28)
    spacing = _iso_spacing(points)
    front = Line2D([], [], color=INK, linewidth=1.0, alpha=0.55)
    crowded = any(len(panel.points) > _MOST_NAMES for panel in panels)
    figure, grid = sheet(
        len(panels),
        1 if len(panels) == 1 else 2,
        4.1,
        "Variance of the gradient against its cost",
        subtitle,
        [
            "Bars: 95% intervals. Down and to the left is better.",
            warnings_note(points, METRIC),
            negligible_note(zero, "variance"),
        ],
        _legend(styles if crowded else {}, front, spacing),
    )
    for panel, axes in zip(panels, grid, strict=True):
        _axes(axes, points[points["problem"] == panel.points["problem"].iloc[0]])
        _panel(axes, panel.points, styles, spacing)
        axes.set_title(literal(panel.title))
        axes.set_xlabel("time of a training-step gradient (ms)")
        axes.set_ylabel(f"variance, tr Cov(ĝ){unit(rows, METRIC)}")
    for panel, axes in zip(panels, grid, strict=True):
        named = pareto_front(panel.points) if crowded else panel.points
        places = list(zip(named["milliseconds"], named[METRIC], strict=True))
        labels = [names[name] for name in named["estimator"]]
        label_points(figure, axes, places, labels, _covering(axes, panel.points))
    return figure


def _legend(styles: dict[str, Style], front: Line2D, spacing: float) -> Legend:
    dotted = Line2D([], [], **{**_ISO, "linewidth": 1.0})  # type: ignore[arg-type]
    iso = f"equal variance × time, a factor of {10**spacing:g} apart"
    return legend_of(styles, [(front, "Pareto front"), (dotted, iso)], lines=False)


def _axes(axes: Axes, points: pd.DataFrame) -> None:
    """The same for all panels of a problem."""
    low, high = log_limits(points, "milliseconds")
    room = max(2.0, (high / low) ** 0.55)  # for the names beside the outermost points
    log_axis(axes, "x", low / room, high * room**0.6, most=6)
    log_axis(axes, "y", *log_limits(points, METRIC, margin=1.6))
    axes.grid(False)


def _panel(axes: Axes, points: pd.DataFrame, styles: dict[str, Style], spacing: float) -> None:
    _iso_lines(axes, spacing)
    front = pareto_front(points)
    axes.plot(*_steps(axes, front), color=INK, linewidth=1.0, alpha=0.55, zorder=1.5, label="Pareto front")
    for name, one in points.groupby("estimator"):
        time, variance, warned = one["milliseconds"], one[METRIC], one[f"{METRIC}_reason"] != ""
        intervals(axes, "y", time, one, METRIC, styles[name])
        intervals(axes, "x", variance, one, "milliseconds", styles[name])
        markers(axes, time, variance, styles[name], name, warned, size=7.5)


def _steps(axes: Axes, front: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Corners of the front: from the top edge right and down from point to point, to the right edge."""
    x, y = front["milliseconds"].tolist(), front[METRIC].tolist()
    xs = [*np.repeat(x, 2).tolist(), axes.get_xlim()[1]]
    ys = [axes.get_ylim()[1], *np.repeat(y, 2).tolist()]
    return xs, ys


def _covering(axes: Axes, points: pd.DataFrame) -> list[Segment]:
    """The lines that a name had better not cover: the front, and the intervals."""
    x, y = _steps(axes, pareto_front(points))
    left, right = (points[f"milliseconds_{end}"].clip(*axes.get_xlim()) for end in ("low", "high"))
    low, high = (points[f"{METRIC}_{end}"].clip(*axes.get_ylim()) for end in ("low", "high"))
    bars = [
        *zip(points["milliseconds"], low, points["milliseconds"], high, strict=True),
        *zip(left, points[METRIC], right, points[METRIC], strict=True),
    ]
    return [*zip(x, y, x[1:], y[1:], strict=False), *(bar for bar in bars if not np.isnan(bar).any())]


def _iso_spacing(points: pd.DataFrame) -> float:
    """log10 of the factor between lines of equal variance × time, for about half a dozen of them."""
    product = np.log10(points[METRIC] * points["milliseconds"])
    reach = float(product.max() - product.min())
    return next((every for every in (math.log10(2), 1.0, 2.0) if reach <= 6 * every), 4.0)


def _iso_lines(axes: Axes, spacing: float) -> None:
    """Lines of equal variance × time."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    first, last = math.log10(left * low), math.log10(right * high)
    x = np.array([left, right])
    for exponent in np.arange(math.ceil(first / spacing) * spacing, last, spacing):
        axes.plot(x, 10**exponent / x, zorder=1, **_ISO)  # type: ignore[arg-type]
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
