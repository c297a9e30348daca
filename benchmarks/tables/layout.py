"""A table laid out for a page: which columns, and the text of each cell, before any markup."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ..rows.text import constants, describe_shared, say
from .columns import Cell, Column, Table, count, word

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
_COUNTS = ("latent_dim", "batch_size", "num_samples")
#: Headings of the columns that hold specifications, to be printed exactly as they stand.
NAMES = ("problem", "estimator", "to")


@dataclass(frozen=True)
class Layout:
    """What a page prints of a table.

    Attributes:
        settings: those that all cases share, in words.
        columns: those that say something of any case.
        lines: the cells of each case.
    """

    settings: str
    columns: list[Column]
    lines: list[list[str]]


def lay_out(table: Table, cases: pd.DataFrame) -> Layout:
    """Of these cases: settings that differ, estimator, what was measured, note."""
    cases = table.readable(cases)
    settings = [setting for setting in _HEADINGS if setting in cases]
    shared = constants(cases, settings)
    columns = [
        *(Column(_HEADINGS[s], _setting(s), number=s in _COUNTS) for s in settings if s not in shared),
        Column("estimator", word("estimator"), number=False),
        *(column for column in table.columns if column.page),
        Column("note", word("note"), number=False),
    ]
    lines = cases.to_dict("records")
    cells = {column: [column.cell(line) for line in lines] for column in columns}
    cells = {column: texts for column, texts in cells.items() if any(texts)}
    return Layout(
        describe_shared(shared), list(cells), [list(line) for line in zip(*cells.values(), strict=True)]
    )


def _setting(column: str) -> Cell:
    if column in _COUNTS:
        return count(column)
    return word(column) if column != "step" else lambda case: say(column, case[column])
