"""Variance against the time of a gradient, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from ...rows.notes import negligible_note, warnings_note
from ...rows.panels import split
from ...rows.rankings import cost_points, pareto_front
from ...rows.text import number, shorten
from ...rows.wide import PANELS, family
from ..runs import Run
from .marks import errors, figure, gather, hover, said, scatter, series_of
from .panel import Panel, Section

_METRIC = "variance"


def sections(runs: Sequence[Run]) -> list[Section]:
    """One section, where variances were measured together with their cost."""
    zero: set[str] = set()

    def select(rows: pd.DataFrame) -> pd.DataFrame:
        points, left_out = cost_points(rows)
        zero.update(left_out)
        return points

    points = gather(runs, select)
    if points.empty:
        return []
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    notes = [
        f"{subtitle}." if subtitle else "",
        warnings_note(points, _METRIC),
        negligible_note(sorted(zero), _METRIC),
    ]
    return [
        Section(
            "against-cost",
            "Variance against cost",
            "Variance against milliseconds of one training-step gradient, with 95% intervals; down and to "
            "the left is better. The step line is the Pareto front of the estimators shown: none of them is "
            "at once faster and less noisy than one on it.",
            [_panel(panel.title, panel.points) for panel in panels],
            [note for note in notes if note],
        )
    ]


def _panel(title: str, points: pd.DataFrame) -> Panel:
    front = pareto_front(points)
    traces: list[go.Scatter] = [
        go.Scatter(
            x=[*front["milliseconds"].repeat(2), points["milliseconds"].max()],
            y=[points[_METRIC].max(), *front[_METRIC].repeat(2)],
            mode="lines",
            line={"width": 1.2},
            hoverinfo="skip",
            meta={"role": "front"},
        )
    ]
    lines, on_front = [], dict.fromkeys(front.index, "")
    for series in series_of(points.reset_index()):
        (p,) = series.points.to_dict("records")[-1:]
        work = f"variance × time {number(p[_METRIC] * p['milliseconds'])}"
        text = hover(
            series.label,
            f"variance {said(p[_METRIC], p[f'{_METRIC}_low'], p[f'{_METRIC}_high'])}",
            f"{said(p['milliseconds'], p['milliseconds_low'], p['milliseconds_high'])} ms a gradient",
            work,
            shorten(p[f"{_METRIC}_reason"], 80),
        )
        traces.append(
            scatter(
                series,
                "milliseconds",
                _METRIC,
                [text],
                line=False,
                hollow=series.points[f"{_METRIC}_reason"] != "",
                error_x=errors(series.points, "milliseconds"),
                error_y=errors(series.points, _METRIC),
            )
        )
        if p["index"] in on_front:
            on_front[p["index"]] = series.label
        numbers = (p[_METRIC], p["milliseconds"], p[_METRIC] * p["milliseconds"])
        lines.append(
            [series.label, *(number(v, 4) for v in numbers), "yes" if p["index"] in on_front else ""]
        )
    return Panel(
        title,
        f"{points['estimator'].nunique()} estimators. On the Pareto front, fastest first: "
        f"{', '.join(on_front.values())}.",
        figure(traces, "time of a gradient (ms)", "variance, tr Cov(ĝ)"),
        ["estimator", "variance", "ms", "variance × ms", "on the front"],
        lines,
        (True, True),
        family(str(points["problem"].iloc[0])),
        pareto=True,
    )
