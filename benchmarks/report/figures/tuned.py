"""Tuning and times to targets: what fairly tuned training came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ...rows.panels import Panel as Points
from ...rows.panels import split
from ...rows.text import number, percent
from ...rows.training_curves import (
    BEST_OF,
    PROFILE,
    REACH,
    CurveKind,
    best_of_curves,
    profile_curves,
    reach_curves,
    shown_until,
)
from ...rows.wide import family
from ..runs import Run
from .marks import Series, dash, figure, gather, hover, on_dark, plain, safe, series_of, symbol
from .panel import Panel, Section

_TABLED = 9  # points of a curve in the table of its data
_NAMED = 3  # estimators in a summary


@dataclass(frozen=True)
class _Drawn:
    """One section.

    Attributes:
        id, title, text: see `Section`.
        kind: of its curves.
        curves: the frame that `rows.training_curves` makes of a run's rows.
        first: what the table calls x.
        second: what it calls y.
    """

    id: str
    title: str
    text: str
    kind: CurveKind
    curves: Callable[[pd.DataFrame], pd.DataFrame]
    first: str
    second: str


_SECTIONS = (
    _Drawn(
        "tuning",
        "Tuning",
        "The expected best objective of k random trials, on the data that rates are chosen by (Dodge et al., "
        "2019); higher is better. Every estimator has the same trials, and one that diverged counts as no "
        "training. Bands are 95% bootstrap intervals, too short above at the right end.",
        BEST_OF,
        best_of_curves,
        "trials",
        "objective",
    ),
    _Drawn(
        "time-to-target",
        "Time to target",
        "The share of training runs that have reached a target (one less the Kaplan–Meier estimate) against "
        "steps. Targets are what the trials chosen in tuning have reached, over estimators, or those asked "
        "for. A run that ends or diverges before the target never reaches it here.",
        REACH,
        reach_curves,
        "steps",
        "share",
    ),
    _Drawn(
        "training-profile",
        "Performance profiles of training",
        "The share ρ(τ) of instances, a workload with a target each, on which an estimator's median steps to "
        "the target are within a factor τ of the least (Dolan & Moré, 2002). Bands: 95% by drawing the seeds "
        "again, the same for all estimators.",
        PROFILE,
        profile_curves,
        "τ",
        "share",
    ),
)


def sections(runs: Sequence[Run]) -> list[Section]:
    """A section for each kind of curve that the runs have something for."""
    return [made for drawn in _SECTIONS if (made := _section(drawn, runs)) is not None]


def _section(drawn: _Drawn, runs: Sequence[Run]) -> Section | None:
    points = gather(runs, drawn.curves)
    if points.empty:
        return None
    subtitle, panels = split(points, drawn.kind.by) if drawn.kind.by else ("", [Points("", points)])
    notes = [f"{subtitle}."] if subtitle else []
    made = [_panel(drawn, panel.title, panel.points) for panel in panels]
    return Section(drawn.id, drawn.title, drawn.text, made, notes)


def _panel(drawn: _Drawn, title: str, points: pd.DataFrame) -> Panel:
    kind = drawn.kind
    traces: list[Any] = []
    lines: list[list[str]] = []
    ends: list[tuple[float, str]] = []
    for series in series_of(points, "label"):
        traces += [*_band(series, kind), _line(series, kind, drawn)]
        own = series.points
        for i in np.unique(np.linspace(0, len(own) - 1, _TABLED).astype(int)):
            lines.append([series.label, number(own["x"][i]), _value(own["y"][i], kind)])
        ends.append((float(own["y"].iloc[-1]), series.label))
    made = figure(traces, kind.x, kind.y.replace("\n", " "))
    if kind.shares:
        made.update_yaxes(range=[-0.03, 1.06], tickformat=".0%")
    if not kind.log:
        made.update_xaxes(range=[float(points["x"].min()), shown_until(points, kind)])
    best = max(value for value, _ in ends)
    leading = [name for value, name in ends if value == best]
    name = ", ".join(leading) if len(leading) <= _NAMED else f"{len(leading)} estimators"
    problem = family(str(points["problem"].iloc[0])) if "problem" in points else ""
    summary = f"Highest at the end: {name}, {_value(best, kind)}."
    headings = ["estimator", drawn.first, drawn.second]
    return Panel(title, summary, made, headings, lines, (True if kind.log else None, None), problem)


def _value(value: float, kind: CurveKind) -> str:
    return percent(float(value)) if kind.shares else number(float(value), 5)


def _line(series: Series, kind: CurveKind, drawn: _Drawn) -> go.Scatter:
    style, own = series.style, series.points
    every = max(1, len(own) // 6)
    texts = [
        hover(series.label, f"{number(x)} {drawn.first}", f"{drawn.second} {_value(y, kind)}")
        for x, y in zip(own["x"], own["y"], strict=True)
    ]
    return go.Scatter(
        x=plain(own["x"]),
        y=plain(own["y"]),
        name=safe(series.label),
        mode="lines+markers",
        line={
            "color": style.color,
            "width": 2.2,
            "dash": dash(style.linestyle),
            "shape": "hv" if kind.steps else "linear",
        },
        marker={
            "symbol": symbol(style.marker),
            "size": [8 if i % every == 0 else 0 for i in range(len(own))],
            "color": style.color,
            "line": {"width": 0},
        },
        hovertext=texts,
        hoverinfo="text",
        meta=series.meta,
    )


def _band(series: Series, kind: CurveKind) -> list[go.Scatter]:
    own = series.points[series.points["low"].notna()]
    if own.empty:
        return []
    return [
        go.Scatter(
            x=plain([*own["x"], *own["x"][::-1]]),
            y=plain([*own["high"], *own["low"][::-1]]),
            fill="toself",
            line={"width": 0, "shape": "linear"},
            fillcolor=series.style.color,
            opacity=0.12,
            meta={**series.meta, "role": "band", "dark": on_dark(series.style.color)},
            hoverinfo="skip",
            mode="lines",
        )
    ]
