"""How many training steps a second, and what memory they take."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..rows.panels import split
from ..rows.text import number, short_names
from ..rows.throughput import LABELS, rank_by, throughput_points
from ..rows.wide import PANELS, separate_samples
from .sheet import Legend, sheet
from .style import FAINT, INK, Style, literal, styles_of, themed

_HATCHES = {"eager": "", "compiled": "////", "cuda-graph": "...."}
_SETTINGS = [column for column in PANELS if column not in ("objective", "step")]


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Bars of steps and gradients a second and of peak memory, with their spread; a hatch for each mode."""
    points = throughput_points(rows)
    if points.empty:
        return None
    metrics = [metric for metric in LABELS if metric in points]
    settings, labels = separate_samples(points, _SETTINGS)
    points = points.assign(label=labels)
    modes = [
        *(m for m in _HATCHES if (points["mode"] == m).any()),
        *sorted(set(points["mode"]) - set(_HATCHES)),
    ]
    if len(modes) == 1:
        settings = [*settings, "mode"]
    subtitle, panels = split(points, settings)
    styles, names = styles_of(points["estimator"]), short_names(points["label"], 32)
    legend = [Patch(facecolor="#BBBBBB", edgecolor="white", hatch=_HATCHES.get(mode, "xx")) for mode in modes]
    bars = max(len(panel.points) for panel in panels)
    figure, grid = sheet(
        len(metrics) * len(panels),
        len(metrics),
        1.0 + max(0.2 * bars, 0.3 * points["label"].nunique()),
        "Training throughput",
        subtitle,
        ["Dark lines: 95% intervals." if points[f"{metrics[0]}_low"].notna().any() else ""],
        Legend(list(legend), list(modes)) if len(modes) > 1 else None,
    )
    for row, panel in enumerate(panels):
        for column, (metric, axes) in enumerate(zip(metrics, grid[row * len(metrics) :], strict=False)):
            present = [mode for mode in modes if (panel.points["mode"] == mode).any()]
            order = _panel(axes, panel.points, metric, present, styles)
            axes.set_yticks(range(len(order)), [literal(names[n]) if column == 0 else "" for n in order])
            axes.set_xlabel(LABELS[metric])
            if column == 0:
                axes.set_title(literal(panel.title))
    return figure


def _panel(
    axes: Axes, points: pd.DataFrame, metric: str, modes: list[str], styles: dict[str, Style]
) -> list[str]:
    """Grouped horizontal bars; returns the labels from the bottom up."""
    first = next(name for name in LABELS if name in points)
    rank = rank_by(points, first) if first != "peak_memory" else points[first]
    order = list(rank.groupby(points["label"]).max().sort_values(kind="stable", na_position="first").index)
    thick = 0.8 / len(modes)
    ends = points[[metric, f"{metric}_high"]].max(axis=1)
    reach = ends.max()
    for (label, mode), one in points.groupby(["label", "mode"]):
        value, low, high = one[[metric, f"{metric}_low", f"{metric}_high"]].iloc[-1]
        if pd.isna(value):
            continue
        y = order.index(label) + thick * ((len(modes) - 1) / 2 - modes.index(mode))
        axes.barh(
            y,
            value,
            height=0.92 * thick,
            color=styles[one["estimator"].iloc[-1]].color,
            edgecolor="white",
            linewidth=0,
            hatch=_HATCHES.get(mode, "xx"),
            label=f"{label} {mode}",
        )
        axes.hlines(y, low, high, color=INK, linewidth=1.4)
        axes.annotate(
            number(value),
            (ends[one.index[-1]], y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=FAINT,
        )
    axes.set_xlim(0, 1.3 * reach if reach > 0 else 1)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    return order
