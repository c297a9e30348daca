"""Tables of the page: headings with explanations, cells with the value they are sorted by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..tables.layout import NAMES, Layout


@dataclass(frozen=True)
class Heading:
    """A column's heading.

    Attributes:
        text: short.
        meaning: in a sentence or two, with the unit.
        number: whether its cells are numbers, or start with one.
        name: whether its cells are specifications, to be printed exactly.
    """

    text: str
    meaning: str = ""
    number: bool = False
    name: bool = False


@dataclass(frozen=True)
class Cell:
    """What is printed, and the number it is sorted by; None: by the text."""

    text: str
    value: float | None = None

    @property
    def sort(self) -> str | None:
        """The number in full, "" where there is none to sort by."""
        if self.value is None:
            return None
        return repr(self.value) if math.isfinite(self.value) else ""


@dataclass(frozen=True)
class Line:
    """One line; ``filters`` are setting -> value as the page's filters know it."""

    cells: list[Cell]
    filters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        id: in the page.
        title: its caption.
        headings: of the columns.
        lines: in the order in which they come first.
        note: below it.
        settings: those that all lines share, in words.
    """

    id: str
    title: str
    headings: list[Heading]
    lines: list[Line]
    note: str = ""
    settings: str = ""

    @property
    def explained(self) -> list[Heading]:
        """The headings that need an explanation."""
        return [heading for heading in self.headings if heading.meaning]


def of_layout(layout: Layout, id: str, title: str, note: str = "", run: str = "") -> Grid:
    """The grid of a table that is also printed elsewhere."""
    headings = [Heading(c.heading, number=c.number, name=c.heading in NAMES) for c in layout.columns]
    place = next((i for i, c in enumerate(layout.columns) if c.heading == "estimator"), None)
    lines = [
        Line(
            [Cell(text) for text in line],
            {"run": run} | ({} if place is None else {"estimator": line[place]}),
        )
        for line in layout.lines
    ]
    return Grid(id, title, headings, lines, note, layout.settings)
