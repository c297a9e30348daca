"""The page of a figure: a title, panels, a legend below them, and notes. Nothing lies over the data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.text import short_names
from .style import FAINT, Style, literal

WIDTH = 9.0  # inches; 900 px at 100 dpi, about the width of a README
_LINE = 0.17  # inches a line of notes
_ENTRY = 0.215  # inches a line of the legend
_NOTE_CHARACTERS = 130


class Legend(NamedTuple):
    """What a sheet prints below its panels: symbols and what they stand for."""

    handles: list[Artist]
    names: list[str]

    @property
    def columns(self) -> int:
        widest = max((len(name) for name in self.names), default=1)
        return max(1, min(len(self.names), int(WIDTH / (0.075 * widest + 0.62))))

    @property
    def height(self) -> float:
        return math.ceil(len(self.names) / self.columns) * _ENTRY + 0.05 if self.names else 0.0


def legend_of(
    styles: Mapping[str, Style],
    extra: Iterable[tuple[Artist, str]] = (),
    names: Mapping[str, str] | None = None,
    lines: bool = True,
) -> Legend:
    """A legend of estimators, their markers and (where drawn) lines, then what else is to be explained."""
    names = short_names(styles, 40) if names is None else names
    handles: list[Artist] = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle=style.linestyle if lines else "none")
        for style in styles.values()
    ]
    others = list(extra)
    return Legend(
        [*handles, *(handle for handle, _ in others)],
        [*(names[label] for label in styles), *(name for _, name in others)],
    )


def sheet(
    panels: int,
    columns: int,
    panel_height: float,
    title: str,
    subtitle: str = "",
    notes: Sequence[str] = (),
    legend: Legend | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, row by row.

    Args:
        panels: their number.
        columns: how many side by side.
        panel_height: inches, with its title and axis labels.
        title: what is shown.
        subtitle: the settings that all panels share.
        notes: sentences printed at the foot.
        legend: printed between panels and notes.

    Returns:
        the figure and its axes.
    """
    legend = legend or Legend([], [])
    lines = textwrap.wrap(" ".join(filter(None, notes)), _NOTE_CHARACTERS, break_on_hyphens=False)
    head = 0.62 if subtitle else 0.42
    foot = 0.12 + legend.height + (len(lines) * _LINE + 0.1 if lines else 0.0)
    rows = math.ceil(panels / columns)
    height = head + rows * panel_height + foot
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.0, foot / height, 1.0, 1 - (head + foot) / height), w_pad=0.08, h_pad=0.06)  # type: ignore[call-arg]
    grid = figure.subplots(rows, columns, squeeze=False)
    for unused in grid.flat[panels:]:
        unused.remove()

    left = 0.12 / WIDTH
    figure.text(left, 1 - 0.13 / height, literal(title), fontsize=12, fontweight="bold", va="top")
    figure.text(left, 1 - 0.38 / height, literal(subtitle), fontsize=10, color=FAINT, va="top")
    figure.text(
        left, 0.1 / height, literal("\n".join(lines)), fontsize=9, color=FAINT, va="bottom", linespacing=1.3
    )
    if legend.names:
        drawn = figure.legend(
            legend.handles,
            ["."] * len(legend.names),
            loc="upper left",
            bbox_to_anchor=(0.0, (foot - 0.02) / height),
            ncols=legend.columns,
            handlelength=3.0,
            columnspacing=1.6,
            labelspacing=0.35,
        )
        for entry, name in zip(drawn.get_texts(), legend.names, strict=True):
            entry.set_text(literal(name))  # not through ``labels``, which swallows a leading underscore
    return figure, list(grid.flat[:panels])
