"""A benchmark's table as a section of a Markdown page."""

from __future__ import annotations

import pandas as pd

from ..rows.text import clean, shorten
from .columns import Benchmark, Column
from .layout import NAMES, lay_out

_MARKUP = "\\|`*_<>[]$"


def section(benchmark: Benchmark, cases: pd.DataFrame) -> str:
    """Heading, the settings that all cases share, the table, and what its columns mean."""
    layout = lay_out(benchmark, cases)
    table = [
        [column.heading for column in layout.columns],
        ["---:" if column.number else "---" for column in layout.columns],
        *(
            [_marked(column, text) for column, text in zip(layout.columns, line, strict=True)]
            for line in layout.lines
        ),
    ]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in table)
    return f"## {benchmark.title}\n\n{plain(layout.settings)}\n\n{grid}\n\n{benchmark.caption}\n"


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
