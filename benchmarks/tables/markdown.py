"""A table as a section of a Markdown page."""

from __future__ import annotations

import pandas as pd

from ..rows.text import clean, shorten
from .columns import Column, Table
from .layout import NAMES, lay_out

_MARKUP = "\\|`*_<>[]$"


def section(table: Table, cases: pd.DataFrame) -> str:
    """Heading, the settings that all cases share, the table, and what its columns mean."""
    layout = lay_out(table, cases)
    lines = [
        [column.heading for column in layout.columns],
        ["---:" if column.number else "---" for column in layout.columns],
        *(
            [_marked(column, text) for column, text in zip(layout.columns, line, strict=True)]
            for line in layout.lines
        ),
    ]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {table.title}\n\n{plain(layout.settings)}\n\n{grid}\n\n{table.caption}\n"


def _marked(column: Column, text: str) -> str:
    if column.number:
        return text
    return code(text) if column.heading in NAMES else plain(text)


def code(text: str) -> str:
    """Text in a cell exactly as it stands, a very long one abridged."""
    inside = shorten(text, 60).replace("`", "'").replace("|", "\\|")
    return f"`{inside}`"


def plain(text: str) -> str:
    """Text in a cell, with nothing in it taken for markup."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in clean(text))
