"""Variance and direction of the gradient along one training trajectory, shared by all estimators."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import Panel, split
from ..rows.text import number
from ..rows.wide import PANELS, at_base_sizes, at_swept_samples, measured, measured_beside, without_negligible
from .axes import intervals, log_axis, log_limits, markers
from .sheet import legend_of, sheet
from .style import INK, Dashes, Style, literal, styles_of, themed
from .variance import METRIC

COSINE, MINIBATCH, GAP = "cosine", "minibatch_variance", "heldout_gap"
_BY = [*(column for column in PANELS if column != "step"), "num_samples"]
_DOTS: Dashes = (0, (1, 1.4))


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance (left) and cosine to the true gradient (right) at the checkpoints of a trajectory.

    Below each step stands how far its held-out objective is from the best of the trajectory. Settings with a
    single step are not drawn.
    """
    every = measured(rows, "variance", [METRIC, COSINE, MINIBATCH, GAP])
    points, zero = without_negligible(every, METRIC)
    points = at_swept_samples(at_base_sizes(points), "step")
    if points.empty:
        return None
    points = points[points.groupby(_BY, dropna=False)["step"].transform("nunique") > 1].reset_index(drop=True)
    if points.empty:
        return None
    subtitle, panels = split(points, _BY)
    last = panels[0].points.sort_values(["step", METRIC], ascending=False, kind="stable")
    ranked = {name: styles_of(points["estimator"])[name] for name in dict.fromkeys(last["estimator"])}
    columns = 2 if points[COSINE].notna().any() else 1
    batch = Line2D([], [], color=INK, linewidth=1.2, linestyle=_DOTS)
    figure, grid = sheet(
        columns * len(panels),
        columns,
        3.9,
        "The gradient estimate along training",
        subtitle,
        [
            "Bars: 95% intervals.",
            _gap_note(points),
            warnings_note(points, METRIC),
            negligible_note(measured_beside(points, every, zero), "variance"),
        ],
        legend_of(ranked, [(batch, "noise by the choice of the batch")] if _has_batch(points) else []),
    )  # fmt: skip
    for index, panel in enumerate(panels):
        variance = grid[columns * index]
        _variance(variance, panel.points, ranked)
        variance.set_ylabel(f"variance, tr Cov(ĝ){unit(rows, METRIC)}")
        variance.set_title(literal(panel.title))
        if columns == 2:
            _cosine(grid[columns * index + 1], panel, ranked)
    return figure


def _variance(axes: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    low, high = log_limits(points, METRIC)
    batch = _minibatch(points)
    if len(batch):
        low, high = min(low, batch[MINIBATCH].min() / 1.2), max(high, batch[MINIBATCH].max() * 1.2)
    log_axis(axes, "y", low, high)
    place = _steps_axis(axes, points)
    if len(batch):
        axes.plot(
            batch["step"].map(place), batch[MINIBATCH], color=INK, linewidth=1.2, linestyle=_DOTS, zorder=1.8,
            label="minibatch",
        )  # fmt: skip
    _lines(axes, points, METRIC, styles, place)


def _cosine(axes: Axes, panel: Panel, styles: dict[str, Style]) -> None:
    points = panel.points
    place = _steps_axis(axes, points)
    axes.set_ylim(min(0.0, float(points[COSINE].min())) - 0.03, 1.03)
    axes.set_ylabel("mean cosine to the true gradient")
    _lines(axes, points[points[COSINE].notna()], COSINE, styles, place)


def _lines(
    axes: Axes, points: pd.DataFrame, metric: str, styles: dict[str, Style], place: dict[float, float]
) -> None:
    for index, (name, style) in enumerate(styles.items()):
        one = points[points["estimator"] == name].sort_values("step")
        if one.empty:
            continue
        left, right = axes.get_xlim()
        x = one["step"].map(place) + 0.007 * (right - left) * (index - (len(styles) - 1) / 2)
        axes.plot(
            x, one[metric], color=style.color, linestyle=style.linestyle, label=f"{name} line", zorder=2
        )
        intervals(axes, "y", x, one, metric, style)
        markers(axes, x, one[metric], style, name, one[f"{METRIC}_reason"] != "", size=6.0)


def _steps_axis(axes: Axes, points: pd.DataFrame) -> dict[float, float]:
    """A logarithmic axis of training steps with the initialization at its left; step -> place."""
    steps = sorted(set(points["step"]))
    positive = [math.log10(step) for step in steps if step > 0]
    apart = max(np.median(np.diff(positive)), 0.5) if len(positive) > 1 else 1.0
    place = {step: math.log10(step) if step > 0 else positive[0] - apart for step in steps}
    ends = min(place.values()), max(place.values())
    margin = 0.08 * (ends[1] - ends[0])
    axes.set_xlim(ends[0] - margin, ends[1] + margin)
    gaps = points.groupby("step")[GAP].first()
    labels = []
    for step in steps:
        gap = "" if pd.isna(gaps[step]) else f"\n{number(gaps[step], 2)}"
        labels.append(f"{step:.0f}{gap}")
    axes.xaxis.set_major_locator(FixedLocator(list(place.values())))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training steps" + (" (below: gap in nats)" if gaps.notna().any() else ""))
    return place


def _gap_note(points: pd.DataFrame) -> str:
    if points[GAP].isna().all():
        return ""
    return "Below each step: its gap in held-out objective to the best of the trajectory, in nats per datum."


def _minibatch(points: pd.DataFrame) -> pd.DataFrame:
    """The minibatch noise at each step, as measured by the least noisy estimator there."""
    known = points[points[MINIBATCH] > 0].sort_values(["step", METRIC], kind="stable")
    return known.drop_duplicates("step")


def _has_batch(points: pd.DataFrame) -> bool:
    return bool((points[MINIBATCH] > 0).any())
