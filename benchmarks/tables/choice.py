"""Which tables rows make: those of the benchmarks known here, and a plain one of every other kind."""

from __future__ import annotations

import re
from functools import partial

import pandas as pd

from ..rows.identity import check_one_model
from ..rows.wide import normalized, select
from .cases import headline_cases
from .columns import TABLES, Column, Table, interval_of, word

#: What has a page or a table of another form; a run's summary has its file name.
_OF_THEIR_OWN = ("certify", "reproduce", "summary")


def tables_of(rows: pd.DataFrame) -> dict[Table, pd.DataFrame]:
    """Table -> its cases, unrounded; only those that have any.

    Raises:
        UsageError: what is called one point has rows of different models or data.
    """
    check_one_model(rows)
    tables = (*TABLES, *(_plain(rows, benchmark) for benchmark in other_benchmarks(rows)))
    return {table: cases for table in tables if len(cases := table.cases(rows))}


def other_benchmarks(rows: pd.DataFrame) -> list[str]:
    """The benchmarks in the rows that nothing here was written for, in their order.

    A name that is not one of a kind's file is left out: rows are read from files, and name files in turn.
    """
    known = {*_OF_THEIR_OWN, *(table.name for table in TABLES)}
    names = [str(name) for name in normalized(rows)["benchmark"].unique() if name not in known]
    return [name for name in names if re.fullmatch(r"\w[\w-]*", name)]


def _plain(rows: pd.DataFrame, benchmark: str) -> Table:
    """The first metric of a benchmark that was measured of whole cases, by their settings."""
    frame = select(rows, benchmark)
    named = frame[frame["metric"] != ""]
    measured = named[named["value"].notna()]
    metric = next(iter([*measured["metric"], *named["metric"]]), "")
    words = metric.replace("_", " ")
    units = set(frame.loc[frame["metric"] == metric, "unit"]) - {""}
    heading = f"{words} ({units.pop()})" if len(units) == 1 else words
    return Table(
        benchmark,
        benchmark.replace("-", " ").capitalize(),
        partial(headline_cases, benchmark=benchmark, metric=metric),
        (Column("settings", word("settings"), number=False), Column(heading, interval_of(metric))),
        f"{words.capitalize()}, with its 95% interval where it has one.",
    )
