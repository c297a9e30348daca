"""What a figure of the page consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Lines = list[list[str]]


@dataclass(frozen=True)
class Panel:
    """One plot, with what stands in for it where it cannot be seen.

    Attributes:
        title: the settings that tell it from the others of its section; may be empty.
        summary: what it shows, in a sentence or two.
        figure: a plotly figure.
        headings: of the table of its data.
        lines: of the same; the first cell of each is the estimator.
        log: whether the axes (x, y) are logarithmic at first; None: they cannot be.
        problem: that it is about; "" for several.
        pareto: whether the page draws the Pareto front of the points shown.
    """

    title: str
    summary: str
    figure: Any
    headings: list[str]
    lines: Lines
    log: tuple[bool | None, bool | None] = (None, None)
    problem: str = ""
    pareto: bool = False


@dataclass(frozen=True)
class Section:
    """Panels about one question.

    Attributes:
        id: in the page.
        title: of the section.
        text: what is drawn, and how to read it.
        panels: none where the runs have nothing to draw.
        notes: about what is left out, or marked.
    """

    id: str
    title: str
    text: str
    panels: list[Panel]
    notes: list[str] = field(default_factory=list)
