"""Variance against a setting: S, D, B, or the training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from ...rows.notes import negligible_note, warnings_note
from ...rows.panels import split
from ...rows.text import number, shorten
from ...rows.wide import (
    PANELS,
    at_base_sizes,
    at_swept_samples,
    family,
    measured,
    without_negligible,
)
from ..runs import Run
from .marks import errors, figure, gather, hover, said, scatter, series_of
from .panel import Panel, Section

_METRIC = "variance"
_LABEL = "variance, tr Cov(ĝ)"


@dataclass(frozen=True)
class _Sweep:
    """One setting that was swept.

    Attributes:
        setting: its column.
        title: of the section.
        axis: label of the horizontal axis.
        symbol: of the setting.
        select: of all points, those of the sweep.
        by: settings that panels differ in.
        log: whether the horizontal axis is logarithmic at first.
        text: how to read it.
    """

    setting: str
    title: str
    axis: str
    symbol: str
    select: Callable[[pd.DataFrame], pd.DataFrame]
    by: tuple[str, ...]
    log: bool = True
    text: str = ""


def _without(setting: str) -> tuple[str, ...]:
    return (*(column for column in PANELS if column != setting), "num_samples")


_SWEEPS = (
    _Sweep(
        "num_samples",
        "Variance against samples S",
        "samples an estimate, S",
        "S",
        lambda points: points,
        tuple(PANELS),
        text="Where an estimate averages independent draws, the variance falls as 1/S: slope −1.",
    ),
    _Sweep(
        "latent_dim",
        "Variance against latent dimension D",
        "latent dimension, D",
        "D",
        lambda points: at_swept_samples(points.assign(problem=points["problem"].map(family)), "latent_dim"),
        _without("latent_dim"),
    ),
    _Sweep(
        "batch_size",
        "Variance against batch size B",
        "data a batch, B",
        "B",
        lambda points: at_swept_samples(points, "batch_size"),
        _without("batch_size"),
        text="The variance of an average over independent data falls as 1/B.",
    ),
    _Sweep(
        "step",
        "Variance along training",
        "training step",
        "step",
        lambda points: at_swept_samples(at_base_sizes(points), "step"),
        _without("step"),
        log=False,
        text="All estimators at the same checkpoints of one trajectory.",
    ),
)


def sections(runs: Sequence[Run]) -> list[Section]:
    """A section for each setting of which some problem has more than one value."""
    found = [_section(sweep, runs) for sweep in _SWEEPS]
    return [section for section in found if section.panels]


def _section(sweep: _Sweep, runs: Sequence[Run]) -> Section:
    zero: set[str] = set()

    def select(rows: pd.DataFrame) -> pd.DataFrame:
        points, left_out = without_negligible(measured(rows, "variance", [_METRIC]), _METRIC)
        if points.empty:
            return points
        points = sweep.select(points)
        several = points.groupby(list(sweep.by), dropna=False)[sweep.setting].transform("nunique") > 1
        if several.any():
            zero.update(left_out)
        return points[several]

    points = gather(runs, select)
    text = f"Total variance of the batch-mean gradient, with 95% intervals. {sweep.text}".strip()
    section = f"against-{sweep.setting.replace('_', '-')}"
    if points.empty:
        return Section(section, sweep.title, text, [])
    subtitle, panels = split(points, sweep.by)
    notes = [
        f"{subtitle}." if subtitle else "",
        warnings_note(points, _METRIC),
        negligible_note(sorted(zero), _METRIC),
    ]
    made = [_panel(sweep, panel.title, panel.points) for panel in panels]
    return Section(section, sweep.title, text, made, [note for note in notes if note])


def _panel(sweep: _Sweep, title: str, points: pd.DataFrame) -> Panel:
    traces, lines = [], []
    for series in series_of(points.sort_values(sweep.setting, kind="stable")):
        one = series.points
        texts = [
            hover(
                series.label,
                f"{sweep.symbol} = {p[sweep.setting]:g}",
                f"variance {said(p[_METRIC], p[f'{_METRIC}_low'], p[f'{_METRIC}_high'])}",
                shorten(p[f"{_METRIC}_reason"], 80),
            )
            for p in one.to_dict("records")
        ]
        hollow = one[f"{_METRIC}_reason"] != ""
        traces.append(
            scatter(
                series, sweep.setting, _METRIC, texts, line=True, hollow=hollow, error_y=errors(one, _METRIC)
            )
        )
        lines += [
            [
                series.label,
                f"{p[sweep.setting]:g}",
                *(number(p[f"{_METRIC}{e}"], 4) for e in ("", "_low", "_high")),
            ]
            for p in one.to_dict("records")
        ]
    made = figure(traces, sweep.axis, _LABEL)
    ticks = sorted(set(points[sweep.setting]))
    if sweep.log and len(ticks) <= 12:
        made.update_xaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    positive = min(ticks) > 0
    return Panel(
        title,
        _summary(sweep, points),
        made,
        ["estimator", sweep.symbol, "variance", "from", "to"],
        lines,
        (sweep.log if positive else None, True),
        str(points["problem"].map(family).iloc[0]),
    )


def _summary(sweep: _Sweep, points: pd.DataFrame) -> str:
    """The ends of the sweep, and who is lowest and highest at its last point."""
    first, last = points[sweep.setting].min(), points[sweep.setting].max()
    end = points[points[sweep.setting] == last].sort_values(_METRIC, kind="stable")
    low, high = end.iloc[0], end.iloc[-1]
    text = (
        f"{points['estimator'].nunique()} estimators, {sweep.symbol} from {first:g} to {last:g}. At "
        f"{sweep.symbol} = {last:g} the lowest variance is {number(low[_METRIC])} "
        f"({shorten(low['estimator'], 48)})"
    )
    if len(end) < 2:
        return f"{text}."
    return f"{text}, the highest {number(high[_METRIC])} ({shorten(high['estimator'], 48)})."
