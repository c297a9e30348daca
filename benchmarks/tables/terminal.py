"""A table for the terminal."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table as Printed
from rich.text import Text

from ..rows.panels import split
from ..rows.text import constants, describe, describe_shared, shorten
from ..rows.wide import PANELS, at_base, family
from .columns import Column, Table, count, word

_NEEDED = re.compile(r" \(at least (\d+)\)")
_INSIDE = {
    "num_samples": Column("S", count("num_samples")),
    "mode": Column("mode", word("mode"), number=False),
}


def printable(table: Table, cases: pd.DataFrame) -> list[Printed]:
    """One for each problem and training step, with the notes below it; of sweeps, their base alone."""
    cases = table.readable(cases)
    cases = at_base(cases) if "step" in cases else cases
    _, panels = split(cases, [setting for setting in PANELS if setting in cases])
    return [_printed(table, panel.points) for panel in panels]


def _printed(table: Table, cases: pd.DataFrame) -> Printed:
    notes = _notes(cases)
    measured = [any(column.cell(case) for column in table.columns) for case in cases.to_dict("records")]
    cases = cases[measured] if any(measured) else cases  # of a case that never ran, the note is all there is
    shared = constants(cases, [*(s for s in PANELS if s in cases), *_INSIDE])
    inside = [column for setting, column in _INSIDE.items() if setting not in shared]
    if "latent_dim" in shared and "problem" in shared:
        shared["problem"] = family(shared["problem"])
    lines = cases.to_dict("records")
    title = _title(table, shared)
    printed = Printed(
        title=title,
        min_width=min(80, max(len(line) for line in title.plain.splitlines())),
        title_justify="left",
        caption=Text("\n".join(notes)) if notes else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    printed.add_column("estimator", overflow="ellipsis", min_width=12)
    texts = [[shorten(line["estimator"], 40) for line in lines]]
    for column in (*inside, *table.columns):
        cells = [column.cell(line) for line in lines]
        if column.terminal and any(cells):
            # Where the terminal is narrow, it is the names that give way, not the numbers.
            width = max(len(text) for text in (column.heading, *cells))
            printed.add_column(
                column.heading, justify="right" if column.number else "left", min_width=width, no_wrap=True
            )
            texts.append(cells)
    sections = cases.groupby(["num_samples", "mode"], dropna=False, sort=False).ngroup().diff(-1) != 0
    for ends, line in zip(sections, zip(*texts, strict=True), strict=True):
        printed.add_row(*(Text(text, no_wrap=True) for text in line), end_section=bool(ends))
    return printed


def _notes(cases: pd.DataFrame) -> list[str]:
    """What is to be said of each estimator; what goes for all of them, once."""
    said = [note.split("; ") if note else [] for note in cases["note"]]
    common = [part for part in said[0] if len(said) > 1 and all(part in parts for parts in said)]
    own = [
        (shorten(name, 30), tuple(mine))
        for name, parts in zip(cases["estimator"], said, strict=True)
        if (mine := [part for part in parts if part not in common])
    ]
    return [*(f"{name}: {'; '.join(mine)}" for name, mine in _most_needed(own)), *common]


def _most_needed(notes: list[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Once each; of notes of an estimator that differ in the replicates needed alone, that of the most."""
    kept: dict[tuple[str, ...], tuple[int, tuple[str, tuple[str, ...]]]] = {}
    for name, parts in notes:
        alike = (name, *(_NEEDED.sub("", part) for part in parts))
        needed = max((int(found[1]) for part in parts if (found := _NEEDED.search(part))), default=0)
        if alike not in kept or needed > kept[alike][0]:
            kept[alike] = needed, (name, parts)
    return [note for _, note in kept.values()]


def _title(table: Table, shared: dict[str, Any]) -> Text:
    """What was measured and where; on a second line the other settings."""
    where = {setting: value for setting, value in shared.items() if setting in ("problem", "step")}
    others = {setting: value for setting, value in shared.items() if setting not in where}
    heading = f"{table.title} · {describe(where)}"
    return Text.assemble((heading, "bold not italic"), (f"\n{describe_shared(others)}", "dim not italic"))
