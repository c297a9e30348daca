"""The comparison as a figure: a line an estimator, a marker a contender, seconds on a logarithmic axis."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...plots.axes import log_axis, log_limits
from ...plots.sheet import Legend, sheet
from ...plots.style import FAINT, INK, Style, literal, theme
from .rows import Row

# A hue a library; Pyro's classes differ in marker, its compiled ones in shade.
_STYLES = {
    "elbograd": Style("#0072B2", "o", "-"),
    "PyTorch loop": Style("#222222", "s", "-"),
    "Pyro TraceMeanField_ELBO": Style("#D55E00", "v", "-"),
    "Pyro Trace_ELBO": Style("#D55E00", "^", "-"),
    "Pyro TraceGraph_ELBO": Style("#D55E00", "D", "-"),
    "Pyro JitTrace_ELBO": Style("#E69F00", "^", "-"),
    "Pyro JitTraceGraph_ELBO": Style("#E69F00", "D", "-"),
    "Storchastic": Style("#CC79A7", "P", "-"),
}
_OTHER = Style("#8C5A2B", "X", "-")
_LINE = 0.34  # inches a case


def draw(rows: list[Row], precision: float, subtitle: str) -> Figure | None:
    """Seconds until the total variance is known to ``precision``; None where nothing was done.

    Args:
        rows: of `compare`.
        precision: relative half-width at 95%.
        subtitle: the machine.
    """
    done = [row for row in rows if row.status == "done"]
    if not done:
        return None
    points = pd.DataFrame([vars(row) for row in done])
    present = dict.fromkeys(points["contender"])
    names = [*(n for n in _STYLES if n in present), *(n for n in present if n not in _STYLES)]
    handles = [Line2D([], [], linestyle="none", **_marker(_style(name), True)) for name in names]
    lines = sum(1 for _ in groupby(done, _case)) + points["problem"].nunique()
    hollow = "Hollow: a different estimator of the same name (see the table)."
    with theme():
        figure, (axes,) = sheet(
            1,
            1,
            0.7 + _LINE * lines,
            f"Time until an estimator's variance is known to ±{100 * precision:g}%",
            subtitle,
            [
                "Bars: 95% intervals. In grey, over elbograd: the PyTorch loop, the fastest filled peer.",
                "" if points["same"].all() else hollow,
            ],
            Legend(list(handles), names),
        )
        limits = log_limits(points, "seconds")
        log_axis(axes, "x", *limits)
        _lines(axes, done)
        axes.set_xlabel("seconds", color=INK)
        figure.draw_without_rendering()
    return figure


def _case(row: Row) -> tuple[str, str, int]:
    return row.problem, row.estimator, row.num_samples


def _lines(axes: Axes, rows: list[Row]) -> None:
    """The cases from the top down, a heading before each problem."""
    labels: list[str] = []
    headings: list[int] = []
    for problem, cases in groupby(rows, lambda row: row.problem):
        headings.append(len(labels))
        labels.append(problem)
        for (_, estimator, num_samples), members in groupby(cases, _case):
            _contenders(axes, len(labels), list(members))
            labels.append(f"{estimator}, S = {num_samples}")
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    for number in headings:
        axes.get_yticklabels()[number].set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def _contenders(axes: Axes, y: int, members: list[Row]) -> None:
    ends = [row.seconds for row in members]
    axes.hlines(y, min(ends), max(ends), color="#CCCCCC", linewidth=1.0, zorder=1)
    for row in members:
        style = _style(row.contender)
        axes.hlines(y, row.seconds_low, row.seconds_high, color=style.color, linewidth=1.6, zorder=2)
        look = _marker(style, row.same)
        axes.plot(row.seconds, y, linestyle="none", zorder=3, label=row.contender, **look)
    axes.annotate(
        _ratios(members),
        (1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=FAINT,
    )


def _ratios(members: list[Row]) -> str:
    # Times to ±1% of another estimator's variance are no ratio of speeds.
    known = [row for row in members if row.same and not math.isnan(row.ratio)]
    loop = [row.ratio for row in known if row.library == "torch"]
    peers = [row.ratio for row in known if row.library not in ("torch", "elbograd")]
    return ", ".join(f"{min(ratios):.0f}×" if ratios else "–" for ratios in (loop, peers))


def _style(name: str) -> Style:
    return _STYLES.get(name, _OTHER)


def _marker(style: Style, filled: bool) -> dict[str, Any]:
    return {
        "marker": style.marker,
        "markersize": 7,
        "markerfacecolor": style.color if filled else "white",
        "markeredgecolor": style.color,
        "markeredgewidth": 1.2,
        "color": style.color,
    }
