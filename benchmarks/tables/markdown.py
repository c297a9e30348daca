"""A benchmark's table as a section of a Markdown page."""

from __future__ import annotations

import pandas as pd

from ..plots.text import clean, constants, describe_shared, say, shorten
from .columns import Benchmark, Cell, Column, count, word

_HEADINGS = {
    "problem": "problem",
    "latent_dim": "D",
    "batch_size": "B",
    "num_samples": "S",
    "objective": "objective",
    "step": "where",
    "mode": "mode",
    "device": "device",
    "dtype": "dtype",
}
_MARKUP = "\\|`*_<>[]$"


def section(benchmark: Benchmark, cases: pd.DataFrame) -> str:
    """Heading, the settings that all cases share, the table, and what its columns mean."""
    cases = benchmark.readable(cases)
    settings = [setting for setting in _HEADINGS if setting in cases]
    shared = constants(cases, settings)
    columns = [
        *(Column(_HEADINGS[s], _setting(s), number=s in _COUNTS) for s in settings if s not in shared),
        Column("estimator", lambda case: code(case["estimator"]), number=False),
        *(column for column in benchmark.columns if column.page),
        Column("note", lambda case: plain(case["note"]), number=False),
    ]
    lines = cases.to_dict("records")
    cells = {column: [column.cell(line) for line in lines] for column in columns}
    cells = {column: texts for column, texts in cells.items() if any(texts)}
    table = [
        [column.heading for column in cells],
        ["---:" if column.number else "---" for column in cells],
        *zip(*cells.values(), strict=True),
    ]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in table)
    return f"## {benchmark.title}\n\n{plain(describe_shared(shared))}\n\n{grid}\n\n{benchmark.caption}\n"


_COUNTS = ("latent_dim", "batch_size", "num_samples")


def _setting(column: str) -> Cell:
    if column in _COUNTS:
        return count(column)
    if column == "problem":
        return lambda case: code(case[column])
    return word(column) if column != "step" else lambda case: say(column, case[column])


def code(text: str) -> str:
    """Text in a cell exactly as it stands, a very long one abridged."""
    inside = shorten(text, 60).replace("`", "'").replace("|", "\\|")
    return f"`{inside}`"


def plain(text: str) -> str:
    """Text in a cell, with nothing in it taken for markup."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in clean(text))
