"""How fast each estimator trains: the held-out objective against steps and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ...rows.panels import split
from ...rows.seeds import (
    BAND,
    OBJECTIVE,
    Curve,
    against_seconds,
    against_steps,
    by_seed,
    limits,
    training_rows,
)
from ...rows.text import number
from ...rows.wide import PANELS, family, separate_samples
from ..runs import Run
from .marks import Series, dash, figure, gather, hover, on_dark, plain, safe, series_of, symbol
from .panel import Panel, Section

_SETTINGS = [column for column in PANELS if column != "step"]
_LABEL = "held-out objective (nats per datum)"


def sections(runs: Sequence[Run]) -> list[Section]:
    """One section, where estimators were used for training: a panel against steps and one against seconds."""
    points = gather(runs, training_rows)
    if points.empty:
        return []
    settings, labels = separate_samples(points, _SETTINGS)
    points = points.assign(label=labels)
    subtitle, panels = split(points, settings)
    made: list[Panel] = []
    for panel in panels:
        made += _panels(panel.title, panel.points)
    seeds = int(points.groupby("run")["seed"].nunique().max())
    spread = "thin lines are the seeds" if seeds < BAND else "bands are 95% intervals of the mean"
    lost = points[points["status"] == "diverged"]
    notes = [
        f"{subtitle}." if subtitle else "",
        f"Thick lines are means over {seeds} seeds, {spread}." if seeds > 1 else "One seed.",
        f"A curve ends where a seed diverged: {', '.join(sorted(set(lost['estimator'])))}."
        if len(lost)
        else "",
    ]
    return [
        Section(
            "convergence",
            "Convergence",
            "The held-out objective in the course of training, against steps and against seconds of training "
            "(evaluation not counted); higher is better.",
            made,
            [note for note in notes if note],
        )
    ]


def _panels(title: str, points: pd.DataFrame) -> list[Panel]:
    steps: list[tuple[Series, Curve]] = []
    seconds: list[tuple[Series, Curve]] = []
    for series in series_of(points, "label"):
        values = by_seed(series.points, OBJECTIVE)
        steps.append((series, against_steps(values)))
        seconds.append((series, against_seconds(values, by_seed(series.points, "seconds"), 100)))
    problem = family(str(points["problem"].iloc[0]))
    both = ((steps, "steps", "training steps"), (seconds, "seconds", "training time (s)"))
    return [
        _panel(title, curves, unit, axis, limits([curve for _, curve in steps]), problem)
        for curves, unit, axis in both
        if any(len(curve.x) for _, curve in curves)
    ]


def _panel(
    title: str,
    curves: list[tuple[Series, Curve]],
    unit: str,
    axis: str,
    shown: tuple[float, float],
    problem: str,
) -> Panel:
    traces: list[Any] = []
    lines, ends = [], []
    for series, curve in curves:
        if not len(curve.x):
            continue
        traces += _spread(series, curve)
        traces.append(_mean(series, curve, unit))
        ends.append((float(curve.mean[-1]), series.label, float(curve.x[-1])))
        for i in np.unique(np.linspace(0, len(curve.x) - 1, 9).astype(int)):
            interval = (number(curve.low[i], 5), number(curve.high[i], 5))
            lines.append([series.label, number(curve.x[i]), number(curve.mean[i], 5), *interval])
    ends.sort(reverse=True)
    best, worst = ends[0], ends[-1]
    summary = f"Highest at the end: {best[1]}, {number(best[0], 4)} nats after {number(best[2])} {unit}"
    if len(ends) > 1:
        summary += f"; lowest: {worst[1]}, {number(worst[0], 4)} after {number(worst[2])} {unit}"
    made = figure(traces, axis, _LABEL)
    made.update_yaxes(range=list(shown))
    titled = " · ".join(part for part in (title, f"against {unit}") if part)
    headings = ["estimator", unit, "objective", "95% from", "to"]
    return Panel(titled, f"{summary}.", made, headings, lines, (unit == "seconds", None), problem)


def _mean(series: Series, curve: Curve, unit: str) -> go.Scatter:
    style = series.style
    every = max(1, len(curve.x) // 6)
    sizes = [8 if i % every == 0 or len(curve.x) == 1 else 0 for i in range(len(curve.x))]
    low, high = curve.low, curve.high
    texts = [
        hover(
            series.label,
            f"{number(x)} {unit}",
            f"objective {number(y, 5)}"
            + (f", 95% interval {number(low[i], 5)} to {number(high[i], 5)}" if np.isfinite(low[i]) else ""),
        )
        for i, (x, y) in enumerate(zip(curve.x, curve.mean, strict=True))
    ]
    return go.Scatter(
        x=plain(curve.x),
        y=plain(curve.mean),
        name=safe(series.label),
        mode="lines+markers",
        line={"color": style.color, "width": 2.2, "dash": dash(style.linestyle)},
        marker={"symbol": symbol(style.marker), "size": sizes, "color": style.color, "line": {"width": 0}},
        hovertext=texts,
        hoverinfo="text",
        meta=series.meta,
    )


def _spread(series: Series, curve: Curve) -> list[go.Scatter]:
    """The seeds where they are few, else the interval of their mean."""
    common = {"hoverinfo": "skip", "mode": "lines"}
    if 1 < len(curve.each) < BAND:
        thin = {"color": series.style.color, "width": 0.8}
        return [
            go.Scatter(x=plain(curve.x), y=plain(y), line=thin, opacity=0.6, meta=series.meta, **common)
            for y in curve.each
        ]
    if not np.isfinite(curve.low).any():
        return []
    return [
        go.Scatter(
            x=plain([*curve.x, *curve.x[::-1]]),
            y=plain([*curve.high, *curve.low[::-1]]),
            fill="toself",
            line={"width": 0},
            fillcolor=series.style.color,
            opacity=0.16,
            meta={**series.meta, "role": "band", "dark": on_dark(series.style.color)},
            **common,
        )
    ]
