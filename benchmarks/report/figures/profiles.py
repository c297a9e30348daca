"""Performance profiles over problems."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from ...rows.rankings import profile, ranked, ratios, reach
from ...rows.text import number, percent, shorten
from ..runs import Run
from .marks import dash, figure, hover, plain, safe, series_of, symbol
from .panel import Panel, Section


def sections(runs: Sequence[Run]) -> list[Section]:
    """One section with a panel a run, for the runs with at least two problems."""
    several = len(runs) > 1
    tables = [(run, table) for run in runs if not (table := ratios(run.rows)).empty]
    if not tables:
        return []
    return [
        Section(
            "performance-profiles",
            "Performance profiles",
            "For each estimator the share ρ(τ) of problems on which its variance × time is within a factor "
            "τ of the best estimator's (Dolan & Moré, 2002); higher is better. At τ = 1 it is the share of "
            "problems on which the estimator is the best.",
            [_panel(run, table, run.name if several else "") for run, table in tables],
        )
    ]


def _panel(run: Run, table: pd.DataFrame, title: str) -> Panel:
    order, end = ranked(table), reach(table)
    points = pd.DataFrame({"estimator": order, "run": run.name})
    traces, lines = [], []
    for series in series_of(points):
        tau, rho = profile(table[series.estimator])
        style = series.style
        texts = [
            hover(series.label, f"within {number(t)} times the best", f"on {percent(r)} of the problems")
            for t, r in zip([*tau, end], [*rho, rho[-1]], strict=True)
        ]
        traces.append(
            go.Scatter(
                x=plain([*tau, end]),
                y=plain([*rho, rho[-1]]),
                name=safe(series.label),
                mode="lines+markers",
                line={"color": style.color, "width": 2, "shape": "hv", "dash": dash(style.linestyle)},
                marker={
                    "symbol": symbol(style.marker),
                    "color": style.color,
                    "size": [8 if r else 0 for r in rho] + [0],
                    "line": {"width": 0},
                },
                hovertext=texts,
                hoverinfo="text",
                meta=series.meta,
            )
        )
        lines += [
            [series.label, shorten(str(problem), 60), number(r)]
            for problem, r in table[series.estimator].items()
        ]
    names = ", ".join(shorten(str(name), 40) for name in table.index[:8])
    best = (table[order[0]] == 1).mean()
    made = figure(traces, "τ, times the best variance × time", "share of problems, ρ(τ)")
    made.update_yaxes(range=[-0.03, 1.06], tickformat=".0%")
    return Panel(
        title,
        f"{table.shape[1]} estimators over {len(table)} problems ({names}{', …' if len(table) > 8 else ''}). "
        f"{shorten(order[0], 48)} is the best on {percent(best)} of them.",
        made,
        ["estimator", "problem", "times the best"],
        lines,
        (True, None),
    )
