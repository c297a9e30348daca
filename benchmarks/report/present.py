"""What a run shows when it ends: tables in the terminal; figures, tables and certificates in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...estimators.errors import UsageError
from ...estimators.text import clean

if TYPE_CHECKING:
    import pandas as pd

_FORMATS = ("png", "svg")  # of figures, where nothing else is asked for
_TABLE_WIDTH = 80


def present(rows: pd.DataFrame, folder: Path, formats: Sequence[str] = _FORMATS) -> None:
    """Print the tables of a run, and draw its figures into its folder.

    Args:
        rows: of the run.
        folder: where ``figures/`` and ``tables/`` go.
        formats: of the figures.

    Raises:
        UsageError: the folder cannot be written.
    """
    from rich.console import Console

    from ..rows.bias import summary_of_bias
    from ..tables import terminal_tables
    from ..tables.verdicts import failures

    drawn = draw(rows, folder, formats)
    console = Console(width=max(Console().width, _TABLE_WIDTH))  # better wrapped than cut off
    tables = terminal_tables(rows)
    for table in tables:
        console.print(table)
    told = "\n".join(str(table.caption or "") for table in tables)
    failed = rows[(rows["status"] == "failed") & (rows["benchmark"] != "certify")].drop_duplicates("case")
    for line in [*failures(rows), *_why_failed(failed, told)]:
        console.print(clean(f"failed: {line}"), markup=False, highlight=False)
    for line in summary_of_bias(rows):
        console.print(clean(line), markup=False, highlight=False)
    print(drawn)


def _why_failed(failed: pd.DataFrame, told: str) -> list[str]:
    """Why cases failed, once where several failed for one reason, and not what the tables have told."""
    groups = failed.groupby(["problem", "reason"], sort=False, dropna=False)["estimator"]
    return [
        f"{', '.join(dict.fromkeys(names))} on {problem}: {reason}"
        for (problem, reason), names in groups
        if clean(str(reason)) not in told
    ]


def draw(rows: pd.DataFrame, folder: Path, formats: Sequence[str] = _FORMATS) -> str:
    """Write a run's tables, figures and certificates into its folder, and say where they are.

    Raises:
        UsageError: the folder cannot be written.
    """
    from ..plots import draw_all
    from ..tables import write_tables
    from .certificate_files import write_certificates

    try:
        tables = write_tables(rows, folder / "tables")
        figures = draw_all(rows, folder / "figures", formats)
        certified = write_certificates(rows, folder)
    except OSError as error:
        raise UsageError(f"cannot write to {error.filename or folder}: {error.strerror}") from error
    pictures = len({f.stem for f in figures})
    noun = "figure" if pictures == 1 else "figures"
    drawn = [f"{pictures} {noun} in {folder / 'figures'}"] if pictures else []
    tabled = [f"all tables in {tables[0]}"] if tables else []
    shown = [f"certificates in {certified[0]}", f"badges in {certified[1].parent}"] if certified else []
    return ", ".join([*drawn, *tabled, *shown]) or "no tables"
