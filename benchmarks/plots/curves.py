"""Curves with bands, a panel for each setting: how tuning and times to targets are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..rows.panels import Panel, columns_for, split
from ..rows.training_curves import CurveKind, shown_until
from .axes import log_axis
from .sheet import legend_of, sheet
from .style import Style, literal, styles_of

_HEIGHT = 3.3


def draw_curves(frame: pd.DataFrame, kind: CurveKind, title: str, notes: Sequence[str]) -> Figure | None:
    """All curves of a frame of `rows.training_curves`; None where there are none."""
    if frame.empty:
        return None
    of_estimator = styles_of(frame["estimator"])
    pairs = frame[["label", "estimator"]].drop_duplicates()
    styles = {
        label: of_estimator[name] for label, name in zip(pairs["label"], pairs["estimator"], strict=True)
    }
    subtitle, panels = split(frame, kind.by) if kind.by else ("", [Panel("", frame)])
    columns = columns_for(panels, _targets_of_each(frame))
    figure, grid = sheet(len(panels), columns, _HEIGHT, title, subtitle, notes, legend_of(styles))
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_title(literal(panel.title))
        _panel(axes, panel.points, kind, styles)
    return figure


def _targets_of_each(frame: pd.DataFrame) -> int:
    """How many targets a workload has: those of one stand side by side."""
    if "target" not in frame:
        return 1
    return int(
        frame.groupby(["problem", "latent_dim", "num_samples"], dropna=False)["target"].nunique().max()
    )


def _panel(axes: Axes, points: pd.DataFrame, kind: CurveKind, styles: dict[str, Style]) -> None:
    for index, (label, one) in enumerate(points.groupby("label", sort=False)):
        _line(axes, one, kind, styles[str(label)], str(label), index / len(styles))
    if kind.shares:
        axes.set_ylim(-0.03, 1.05)
    if kind.log:
        log_axis(axes, "x", 0.97, float(points["x"].max()))
    else:
        axes.set_xlim(float(points["x"].min()), shown_until(points, kind))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(literal(kind.x))
    axes.set_ylabel(literal(kind.y))


def _line(axes: Axes, one: pd.DataFrame, kind: CurveKind, style: Style, label: str, offset: float) -> None:
    x, y, low, high = (one[column].to_numpy(dtype=float) for column in ("x", "y", "low", "high"))
    every = max(1, len(x) // 6)
    axes.plot(
        x,
        y,
        drawstyle="steps-post" if kind.steps else "default",
        color=style.color,
        linestyle=style.linestyle,
        marker=style.marker,
        markevery=(int(offset * every), every),
        markersize=5.5,
        label=label,
    )
    if np.isfinite(low).any():
        step = "post" if kind.steps else None
        axes.fill_between(x, low, high, step=step, color=style.color, alpha=0.08, linewidth=0)  # type: ignore[arg-type]
