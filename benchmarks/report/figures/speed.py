"""Training steps and gradients a second, and memory."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from ...rows.panels import split
from ...rows.text import number, short_names
from ...rows.throughput import LABELS, rank_by, throughput_points
from ...rows.wide import PANELS, family, separate_samples
from ..runs import Run
from .marks import errors, figure, gather, hover, plain, safe, said, series_of
from .panel import Panel, Section

_SETTINGS = [*(column for column in PANELS if column != "step"), "mode"]


def sections(runs: Sequence[Run]) -> list[Section]:
    """One section, where throughput was measured: a panel a metric, setting and mode."""
    points = gather(runs, throughput_points)
    if points.empty:
        return []
    settings, labels = separate_samples(points, _SETTINGS)
    points = points.assign(label=labels)
    subtitle, panels = split(points, settings)
    made = [
        _panel(panel.title, panel.points, metric)
        for panel in panels
        for metric in LABELS
        if metric in panel.points and panel.points[metric].notna().any()
    ]
    return [
        Section(
            "throughput",
            "Throughput",
            "Medians with 95% intervals; of memory the peak of one training step.",
            made,
            [f"{subtitle}."] if subtitle else [],
        )
    ]


def _panel(title: str, points: pd.DataFrame, metric: str) -> Panel:
    points = points[points[metric].notna()]
    rank = rank_by(points, metric) if metric != "peak_memory" else points[metric]
    points = points.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)
    axis = LABELS[metric]
    several = list(series_of(points, "label"))
    names = short_names([series.label for series in several], 26)
    traces, lines = [], []
    for series in several:
        p = series.points.to_dict("records")[-1]
        ends = (p[f"{metric}_low"], p[f"{metric}_high"])
        traces.append(
            go.Bar(
                x=plain([p[metric]]),
                y=[safe(names[series.label])],
                orientation="h",
                name=safe(series.label),
                marker={"color": series.style.color},
                error_x=errors(series.points.tail(1), metric),
                hovertext=[hover(series.label, f"{axis}: {said(p[metric], *ends)}")],
                hoverinfo="text",
                meta={**series.meta, "role": "bar"},
            )
        )
        lines.append([series.label, *(number(value, 4) for value in (p[metric], *ends))])
    best, worst = lines[-1], lines[0]
    words = ("Most", "fewest") if metric != "peak_memory" else ("Highest", "lowest")
    made = figure(traces, "", "", bargap=0.28, barmode="overlay")
    return Panel(
        " · ".join(part for part in (title, axis) if part),
        f"{words[0]}: {best[0]}, {best[1]}; {words[1]}: {worst[0]}, {worst[1]}.",
        made,
        ["estimator", axis, "from", "to"],
        lines[::-1],
        (False, None),
        family(str(points["problem"].iloc[0])),
    )
