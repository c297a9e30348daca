"""Reading results, a run folder's or a file's, as a data frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...estimators.errors import UsageError
from ..rows.schema import COLUMNS
from .lines import NewerVersion
from .log import NOT_WHOLE, Log, read_log

if TYPE_CHECKING:
    import pandas as pd

ROWS, TABLE = "rows.jsonl", "rows.parquet"
_TYPES = {int: "Int64", float: "float64", str: "object"}


def load_results(path: Path | str) -> pd.DataFrame:
    """Read the rows of a run folder, or of a rows.jsonl or .parquet file, with their types.

    Of a run that is not finished, or was killed, the finished cases are read; rows of earlier schema versions
    come as those of this one. Nothing that a file holds is executed, and no damage is read over: checksums
    tell a changed byte.

    Args:
        path: a folder is read from its rows.jsonl, where it has none from its rows.parquet.

    Raises:
        UsageError: there are no rows there, they are damaged, or of a newer schema version.
    """
    path = Path(path)
    try:
        return as_frame(_rows(_file(path)))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from error


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame of the schema's types."""
    import pandas as pd

    columns = {name: [r[name] for r in rows] for name in COLUMNS}
    return pd.DataFrame(
        {name: pd.Series(values, dtype=_TYPES[COLUMNS[name][0]]) for name, values in columns.items()}
    )


def reason(error: Exception) -> str:
    """An exception in one line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return getattr(error, "strerror", None) or lines[0]


def _file(path: Path) -> Path:
    candidates = [path / ROWS, path / TABLE] if path.is_dir() else [path]
    there = [file for file in candidates if file.exists()]
    if not there:
        raise UsageError(f"no results in {path}: expected a run folder with a {ROWS}")
    if not there[0].is_file():
        raise UsageError(f"{there[0]} is not a file")
    return there[0]


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        from .table import read_table

        try:
            return read_table(file)
        except NewerVersion as error:
            raise UsageError(f"{file} has {error}") from None
        except ValueError as error:
            raise UsageError(f"cannot read {file}: {reason(error)}") from error
    log = read_log(file)
    if log.damaged:
        raise UsageError(f"cannot read {file}: {_damage(log)}")
    return log.rows


def _damage(log: Log) -> str:
    """The first line whose damage is its own, if there is one, and how many more there are."""
    number = min(log.damaged, key=lambda number: (log.damaged[number][1] == NOT_WHOLE, number))
    _, why = log.damaged[number]
    more = len(log.damaged) - 1
    others = f" ({more} more with it)" if more else ""
    return f"line {number} is damaged{others}: {why}; the command that made the run measures it anew"
