"""How an estimator looks in the interactive figures: as in the others, on light and on dark ground."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ...plots.style import Dashes, Style, styles_of
from ...rows.text import clean, number, shorten
from ..runs import Run

#: The page's dark ground, which colours are held against.
DARK = "#14171C"
_CONTRAST = 3.6  # at least that of a colour on the dark ground; WCAG 2 asks 3 of graphics

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "P": "cross",
    "X": "x",
    "*": "star",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "h": "hexagon",
    "d": "diamond-tall",
}


@dataclass(frozen=True)
class Series:
    """One estimator's points of one run."""

    estimator: str
    run: str
    label: str
    style: Style
    points: pd.DataFrame

    @property
    def meta(self) -> dict[str, str]:
        """What the page's filters and themes need to know of a trace."""
        return {
            "estimator": self.estimator,
            "run": self.run,
            "color": self.style.color,
            "dark": on_dark(self.style.color),
        }


def gather(runs: Sequence[Run], select: Any) -> pd.DataFrame:
    """The points that ``select`` makes of each run's rows, with a column ``run``."""
    found = [select(run.rows).assign(run=run.name) for run in runs]
    found = [points for points in found if not points.empty]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def series_of(points: pd.DataFrame, labels: str = "estimator") -> Iterator[Series]:
    """The points of each estimator and run. Runs differ in markers and lines, estimators in colours too."""
    several = points["run"].nunique() > 1
    styles = styles_of(points["estimator"])
    runs = list(dict.fromkeys(points["run"]))
    for (estimator, label, run), one in points.groupby(
        ["estimator", labels, "run"], sort=False, dropna=False
    ):
        named = f"{shorten(label, 48)} ({shorten(run, 32)})" if several else shorten(label, 60)
        style = _in_run(styles[str(estimator)], runs.index(run))
        yield Series(str(estimator), str(run), named, style, one.reset_index(drop=True))


_OTHERS = tuple(_SYMBOLS)
_LINES: tuple[Dashes, ...] = ("-", (0, (5.0, 2.0)), (0, (1.2, 1.6)), (0, (5.0, 1.6, 1.2, 1.6)))


def _in_run(style: Style, index: int) -> Style:
    """The same colour, and for the second run and later ones another marker and line."""
    if index == 0:
        return style
    marker = _OTHERS[(_OTHERS.index(style.marker) + 5 * index) % len(_OTHERS)]
    lines = [line for line in _LINES if line != style.linestyle]
    return replace(style, marker=marker, linestyle=lines[(index - 1) % len(lines)])


def symbol(marker: str) -> str:
    """plotly's name of a marker."""
    return _SYMBOLS.get(marker, "circle")


def dash(line: Dashes) -> str:
    """plotly's name of a line style, for lines two pixels wide."""
    return "solid" if line == "-" else ",".join(f"{2 * length:g}px" for length in line[1])


def on_dark(color: str) -> str:
    """The colour with as much white as makes it visible on the dark ground; mostly the colour itself.

    >>> on_dark("#E69F00"), on_dark("#000000")
    ('#E69F00', '#737373')
    """
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    for share in range(0, 101, 5):
        mixed = [round(c + (255 - c) * share / 100) for c in channels]
        if contrast(mixed, [int(DARK[i : i + 2], 16) for i in (1, 3, 5)]) >= _CONTRAST:
            break
    return "#" + "".join(f"{c:02X}" for c in mixed)


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast ratio of two sRGB colours, by the definition of WCAG 2."""
    low, high = sorted(_luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Sequence[int]) -> float:
    linear = [c / 12.92 if (c := v / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for v in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def safe(text: str) -> str:
    """Text for plotly, which takes some HTML in it."""
    return html.escape(clean(text))


def hover(*lines: str) -> str:
    """Lines of a hover label, the first in bold; empty ones are left out."""
    first, *rest = (safe(line) for line in lines if line)
    return "<br>".join([f"<b>{first}</b>", *rest])


def errors(values: pd.DataFrame, metric: str) -> dict[str, Any]:
    """plotly's error bars from a metric's interval; an end that is not a number has no bar."""
    above = (values[f"{metric}_high"] - values[metric]).clip(lower=0)
    below = (values[metric] - values[f"{metric}_low"]).clip(lower=0)
    bars = {"type": "data", "symmetric": False, "array": plain(above), "arrayminus": plain(below)}
    return {**bars, "thickness": 1.6, "width": 3}


def plain(values: Iterable[Any]) -> list[float | None]:
    """Numbers that JSON can hold."""
    return [float(v) if pd.notna(v) and abs(v) != float("inf") else None for v in values]


def scatter(
    series: Series, x: str, y: str, texts: list[str], *, line: bool, hollow: Iterable[bool] = (), **more: Any
) -> go.Scatter:
    """An estimator's points, hollow where a warning goes with the value."""
    style = series.style
    open_ = list(hollow) or [False] * len(series.points)
    symbols = [symbol(style.marker) + ("-open" if o else "") for o in open_]
    return go.Scatter(
        x=plain(series.points[x]),
        y=plain(series.points[y]),
        name=safe(series.label),
        mode="lines+markers" if line else "markers",
        marker={"symbol": symbols, "size": 9, "color": style.color},
        line={"color": style.color, "width": 2, "dash": dash(style.linestyle)},
        hovertext=texts,
        hoverinfo="text",
        meta=series.meta,
        **more,
    )


def figure(traces: list[Any], x: str, y: str, **layout: Any) -> go.Figure:
    """A figure with these axis titles; colours of text and grid are the page's."""
    made = go.Figure(traces, layout={"template": go.layout.Template()})
    made.update_layout(
        xaxis={"title": {"text": safe(x)}, "automargin": "height", "zeroline": False, "tickangle": 0},
        yaxis={"title": {"text": safe(y)}, "automargin": "width", "zeroline": False},
        margin={"l": 10, "r": 12, "t": 10, "b": 10},
        showlegend=False,
        hovermode="closest",
    )
    made.update_layout(**layout)
    return made


def said(value: float, low: float, high: float) -> str:
    """A value with its 95% interval, in words for a hover label."""
    ends = f", 95% interval {number(low, 4)} to {number(high, 4)}" if pd.notna(low) and pd.notna(high) else ""
    return f"{number(value, 4)}{ends}"
