"""How fast each estimator trains: the held-out objective against steps and against seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rows.panels import split
from ..rows.seeds import (
    BAND,
    OBJECTIVE,
    Curve,
    against_seconds,
    against_steps,
    by_seed,
    limits,
    training_rows,
)
from ..rows.text import shorten
from ..rows.wide import PANELS, separate_samples
from .axes import log_axis
from .sheet import legend_of, sheet
from .style import Style, literal, styles_of, themed

_SETTINGS = [column for column in PANELS if column not in ("objective", "step")]


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Held-out objective in nats per datum against training steps (left) and training seconds (right).

    Lines are means over seeds, bands 95% intervals of the mean by Student's t; two or three seeds are drawn
    themselves, as thin lines. A line ends where the first of its seeds diverges.
    """
    frame = training_rows(rows)
    if frame.empty:
        return None
    settings, labels = separate_samples(frame, _SETTINGS)
    frame = frame.assign(label=labels)
    of_estimator = styles_of(frame["estimator"])
    pairs = frame[["label", "estimator"]].drop_duplicates()
    styles = {
        label: of_estimator[name] for label, name in zip(pairs["label"], pairs["estimator"], strict=True)
    }
    subtitle, panels = split(frame, settings)
    seeds = frame["seed"].nunique()
    figure, grid = sheet(
        2 * len(panels),
        2,
        3.7,
        "Training with each estimator",
        subtitle,
        [
            _seeds_note(seeds),
            _diverged_note(frame),
        ],
        legend_of({label: styles[label] for label in ranked(panels[0].points, list(styles))}),
    )
    for index, panel in enumerate(panels):
        _row(grid[2 * index], grid[2 * index + 1], panel.points, styles)
        grid[2 * index].set_title(literal(panel.title))
    return figure


def _row(steps: Axes, seconds: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    curves, timed = [], []
    for index, (label, style) in enumerate(styles.items()):
        one = points[points["label"] == label]
        values = by_seed(one, OBJECTIVE)
        diverged = (one["status"] == "diverged").any()
        offset = index / len(styles)
        curves.append(against_steps(values))
        timed.append(against_seconds(values, by_seed(one, "seconds")))
        _line(steps, curves[-1], style, label, diverged, offset)
        _line(seconds, timed[-1], style, label, diverged, offset)
    low, high = limits(curves)
    steps.set_xlim(left=0)
    _time_axis(seconds, timed, low)
    for axes, label in ((steps, "training steps"), (seconds, "training time (s)")):
        axes.set_ylim(low, high)
        axes.set_xlabel(label)
    steps.set_ylabel("held-out objective\n(nats per datum, higher is better)")


def _line(axes: Axes, curve: Curve, style: Style, label: str, diverged: bool, offset: float) -> None:
    """A mean curve with its band and a few markers, and a cross where it ends because a seed diverged."""
    if not len(curve.x):
        return
    every = max(1, len(curve.x) // 6)
    axes.plot(
        curve.x,
        curve.mean,
        color=style.color,
        linestyle=style.linestyle,
        marker=style.marker,
        markevery=(int(offset * every), every),
        markersize=5.5,
        label=label,
    )
    if 1 < len(curve.each) < BAND:
        axes.plot(curve.x, curve.each.T, color=style.color, linewidth=0.8, alpha=0.55)
    elif np.isfinite(curve.low).any():
        axes.fill_between(curve.x, curve.low, curve.high, color=style.color, alpha=0.16, linewidth=0)
    if diverged:
        axes.plot(
            curve.x[-1:],
            curve.mean[-1:],
            marker="x",
            markersize=9,
            markeredgewidth=2.2,
            color=style.color,
            zorder=4,
        )


def _time_axis(axes: Axes, curves: list[Curve], low: float) -> None:
    """Logarithmic, since costs may differ a hundredfold; from where the first curve rises above ``low``."""
    shown = [times for curve in curves if len(times := curve.x[curve.mean >= low])]
    if shown:
        start, end = min(times[0] for times in shown), max(times[-1] for times in shown)
        margin = max(1.1, (end / start) ** 0.04)
        log_axis(axes, "x", start / margin, end * margin, most=6)


def ranked(points: pd.DataFrame, labels: list[str]) -> list[str]:
    """The labels as their curves end, highest first, so that the legend reads like the panel."""
    ends = points[(points["metric"] == OBJECTIVE) & points["value"].notna()]
    seeds = ends.sort_values("step", kind="stable").groupby(["label", "seed"], dropna=False)
    final = seeds["value"].last().groupby("label").mean()
    return [*final.sort_values(ascending=False, kind="stable").index, *(x for x in labels if x not in final)]


def _seeds_note(seeds: int) -> str:
    if seeds == 1:
        return "One seed."
    spread = "thin lines: each seed" if seeds < BAND else "bands: 95% interval of the mean"
    return f"Thick lines: mean over {seeds} seeds; {spread}."


def _diverged_note(frame: pd.DataFrame) -> str:
    """Which estimators diverged, in how many of their seeds."""
    lost = frame[frame["status"] == "diverged"].groupby("estimator")["seed"].nunique()
    said = [
        f"{shorten(name, 32)} {count} of {frame.loc[frame['estimator'] == name, 'seed'].nunique()}"
        for name, count in lost.items()
    ]
    return f"×: a seed diverged ({'; '.join(said)})." if said else ""
