"""The runs' other tables: certification, reproductions, and everything behind the figures."""

from __future__ import annotations

from collections.abc import Sequence

from ..rows.certificates import certificates
from ..rows.text import shorten
from ..tables.choice import tables_of
from ..tables.layout import lay_out
from ..tables.verdicts import verdict_layout, verdict_notes
from .cells import Cell, Grid, Heading, Line, of_layout
from .runs import Run


def certification(runs: Sequence[Run]) -> list[Grid]:
    """Claims tested against exact answers: a table a run that has any."""
    return [
        of_layout(verdict_layout(run.rows), f"certify-{i}", _title("Certification", run, runs), run=run.name)
        for i, run in enumerate(runs)
        if certificates(run.rows)
    ]


def certification_notes(runs: Sequence[Run]) -> list[str]:
    """How certain those tables are, and what did not hold or was left open."""
    return list(dict.fromkeys(note for run in runs for note in verdict_notes(run.rows)))


def reproductions(runs: Sequence[Run]) -> list[Grid]:
    """Published results rerun: the claims, whether they hold, and the numbers."""
    grids = []
    for i, run in enumerate(runs):
        rows = run.rows[(run.rows["benchmark"] == "reproduce") & (run.rows["metric"] == "claim")]
        lines = []
        for row in rows.fillna({"parameter": "", "reason": ""}).to_dict("records"):
            here, _, expected = str(row["reason"]).partition("; expected ")
            verdict = "holds" if row["value"] == 1 else "fails"
            texts = (shorten(str(row["problem"]), 60), str(row["parameter"]), verdict, here, expected)
            lines.append(Line([Cell(text) for text in texts], {"run": run.name}))
        if lines:
            headings = [Heading("result", name=True), *map(Heading, ("claim", "verdict", "here", "expected"))]
            grids.append(
                Grid(f"reproduce-{i}", _title("Published results rerun", run, runs), headings, lines)
            )
    return grids


def benchmarks(runs: Sequence[Run]) -> list[Grid]:
    """Every case of every benchmark, as in the run's tables.md."""
    grids = []
    for i, run in enumerate(runs):
        for table, cases in tables_of(run.rows).items():
            title = _title(table.title, run, runs)
            layout = lay_out(table, cases)
            grids.append(of_layout(layout, f"all-{table.name}-{i}", title, table.caption, run.name))
    return grids


def _title(title: str, run: Run, runs: Sequence[Run]) -> str:
    return f"{title}: {run.name}" if len(runs) > 1 else title
