"""One self-contained HTML page about one run or several, made from their folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...estimators.errors import UsageError
from ..store.atomic import write_atomically
from .runs import Run, load_runs

__all__ = ["Run", "load_runs", "missing", "write_report"]

NAME = "report.html"


def missing() -> str:
    """What the page needs and is not installed, in one line; "" where all is there."""
    try:
        import jinja2
        import plotly
    except ImportError as error:
        return f"{NAME} needs {error.name}: pip install {error.name}"
    del jinja2, plotly
    return ""


def write_report(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``report.html``: the verdict, interactive figures, tables, and how it was measured.

    Args:
        runs: of `load_runs`.
        folder: where the file goes; made if missing.

    Returns:
        the file.

    Raises:
        UsageError: plotly is not installed, the folder cannot be written, or rows of what is called one point
            are of different models or data.
    """
    if needed := missing():
        raise UsageError(needed)
    import pandas as pd

    from ..rows.identity import check_one_model
    from .page import render

    check_one_model(pd.concat([run.rows for run in runs], ignore_index=True))
    text = render(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / NAME, text)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    return folder / NAME
