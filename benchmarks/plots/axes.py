"""Logarithmic axes with ticks that can be read, and points with intervals on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from ..rows.text import number
from .style import FAINT, Style

Direction = Literal["x", "y"]


def log_limits(points: pd.DataFrame, metric: str, margin: float = 1.25) -> tuple[float, float]:
    """Ends of a logarithmic axis for values and their intervals, where they have some.

    An interval that reaches zero or far below everything measured is cut at the axis; the values never are.
    """
    values = points[metric][points[metric] > 0]
    if values.empty:  # all zero, of which a logarithmic axis shows nothing
        return 0.1, 10.0
    ends = points.reindex(columns=[f"{metric}_low", f"{metric}_high"]).to_numpy(dtype=float)
    ends = ends[np.isfinite(ends) & (ends > values.min() / 10) & (ends < values.max() * 10)]
    both = np.concatenate([values.to_numpy(dtype=float), ends])
    low, high = float(both.min()), float(both.max())
    margin = max(margin, (high / low) ** 0.04)
    return low / margin, high * margin


def log_axis(axes: Axes, direction: Direction, low: float, high: float, most: int = 7) -> None:
    """Make an axis logarithmic from ``low`` to ``high``, with at most ``most`` round ticks."""
    ticks = log_ticks(low, high, most)
    (axes.set_xscale if direction == "x" else axes.set_yscale)("log")
    (axes.set_xlim if direction == "x" else axes.set_ylim)(low, high)
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(tick_labels(ticks)))
    axis.set_minor_locator(FixedLocator(_minor_ticks(low, high)))
    axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers within [low, high] for a logarithmic axis: as many as fit, at most about ``most``."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices: list[Sequence[float]] = [
        [m * 10.0**d for d in decades for m in mantissas]
        for mantissas in ((1, 1.5, 2, 3, 4, 5, 7), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3))
    ]
    choices += [[10.0**d for d in decades if d % every == 0] for every in range(1, len(decades) + 1)]
    if high / low < 4:
        choices.insert(0, MaxNLocator(most - 2, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    inside = [[_rounded(tick) for tick in choice if low <= tick <= high] for choice in choices]
    apart = math.log(high / low) / most
    roomy = [ticks for ticks in inside if all(math.log(b / a) >= apart for a, b in itertools.pairwise(ticks))]
    return max(roomy, key=lambda ticks: min(len(ticks), 3))  # the first that has three, if any has


def _rounded(tick: float) -> float:
    return round(tick, 12 - math.floor(math.log10(tick)))


def tick_labels(ticks: list[float]) -> list[str]:
    """Plain numbers where all are of a handy size, powers of ten otherwise."""
    if all(1e-3 <= tick < 1e5 for tick in ticks):
        return [f"{tick:g}" for tick in ticks]
    labels = []
    for tick in ticks:
        mantissa, _, exponent = f"{tick:.12e}".partition("e")
        factor = f"{float(mantissa):g}"
        power = f"10^{{{int(exponent)}}}"
        labels.append(f"${power}$" if factor == "1" else rf"${factor}{{\times}}{power}$")
    return labels


def _minor_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if len(decades) > 10:
        return []
    ticks = (m * 10.0**d for d in decades for m in range(2, 10))
    return [tick for tick in ticks if low <= tick <= high]


def measured_ticks(axes: Axes, direction: Direction, values: Iterable[float]) -> None:
    """A logarithmic axis with a tick at each measured setting, such as S = 1, 2, 4."""
    ticks = sorted(set(values))
    spread = (ticks[-1] / ticks[0]) ** 0.09 if len(ticks) > 1 else 1.5
    log_axis(axes, direction, ticks[0] / spread, ticks[-1] * spread)
    axis = axes.xaxis if direction == "x" else axes.yaxis
    shown = [tick for i, tick in enumerate(ticks) if (len(ticks) - 1 - i) % math.ceil(len(ticks) / 9) == 0]
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in shown]))
    axis.set_minor_locator(NullLocator())


def intervals(
    axes: Axes,
    direction: Direction,
    at: Any,
    points: pd.DataFrame,
    metric: str,
    style: Style,
    width: float = 1.6,
) -> None:
    """Draw the intervals of ``metric`` along ``direction``, ``at`` these places on the other axis.

    Call it when the limits are set: an end beyond them, such as one below zero, is drawn to the edge.
    """
    edges = axes.get_xlim() if direction == "x" else axes.get_ylim()
    low, high = (points[f"{metric}_{end}"].clip(*edges) for end in ("low", "high"))
    draw = axes.hlines if direction == "x" else axes.vlines
    draw(at, low, high, color=style.color, linewidth=width, zorder=2.5)


def markers(axes: Axes, x: Any, y: Any, style: Style, label: str, hollow: Any, size: float = 6.5) -> None:
    """Markers, hollow where a warning goes with the value."""
    x, y, hollow = (np.atleast_1d(np.asarray(values)) for values in (x, y, hollow))
    for mask, face in ((~hollow, style.color), (hollow, "white")):
        if mask.any():
            axes.plot(
                x[mask],
                y[mask],
                linestyle="none",
                marker=style.marker,
                markersize=size,
                markerfacecolor=face,
                markeredgecolor=style.color,
                markeredgewidth=1.4,
                label=label,
                zorder=3,
            )


def beside(axes: Axes, y: float, value: float) -> None:
    """Print a value to the right of the panel, level with its point."""
    axes.annotate(
        number(value),
        (1.015, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9,
        color=FAINT,
    )
