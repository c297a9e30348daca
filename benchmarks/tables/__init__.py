"""Tables, from rows alone: to print when a run ends, to read in Markdown, for papers in LaTeX, as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..store.atomic import write_atomically
from .cases import summary
from .choice import tables_of
from .latex import latex, tabular
from .markdown import section
from .terminal import printable
from .verdicts import verdict_cases, verdict_layout, verdict_section, verdict_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["summary", "terminal_tables", "write_tables"]


def write_tables(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``tables.md``, a LaTeX file a benchmark and, with unrounded numbers, CSV files.

    Args:
        rows: long rows, the columns of ``schema.COLUMNS``.
        folder: where the files go; made if missing.

    Returns:
        the files written; none where there are no rows.
    """
    tables = tables_of(rows)
    verdicts = verdict_section(rows)
    if not tables and not verdicts:
        return []
    sections = [verdicts] * bool(verdicts) + [section(*of_table) for of_table in tables.items()]
    texts = {"tables.md": "\n".join(sections)}
    texts |= {f"{table.name}.csv": cases.to_csv(index=False) for table, cases in tables.items()}
    texts |= {f"{table.name}.tex": latex(table, cases) for table, cases in tables.items()}
    if len(of_each_case := summary(rows)):
        texts["summary.csv"] = of_each_case.to_csv(index=False)
    if verdicts:
        texts["certify.csv"] = verdict_cases(rows).to_csv(index=False)
        texts["certify.tex"] = tabular(verdict_layout(rows), "Certification")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def terminal_tables(rows: pd.DataFrame) -> list[Table]:
    """The same tables to print, each for one problem and training step, compact enough for 80 columns.

    Of sweeps only the settings that they were made about, at the first and the last step.
    """
    verdicts = verdict_table(rows)
    tables = [printed for table, cases in tables_of(rows).items() for printed in printable(table, cases)]
    return tables if verdicts is None else [verdicts, *tables]
