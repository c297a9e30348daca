"""`elbograd report`: the page, the figures and the tables of run folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from . import missing, write_report
from .present import present
from .runs import Run, load_runs

_FORMATS = ("png", "svg", "pdf")


def write(folders: Sequence[Path], output: Path | None = None, formats: str = ",".join(_FORMATS)) -> None:
    """Write ``report.html``; of each run the figures and tables too, and print the latter.

    Args:
        folders: of runs.
        output: where to write; None for the run's own folder, and for the current one where there are several
            runs, each of which has its figures and tables in its own folder then.
        formats: of the figures, separated by commas.

    Raises:
        UsageError: a folder that holds no run, or cannot be written; an unknown format.
    """
    chosen = tuple(dict.fromkeys(part.strip() for part in formats.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in _FORMATS]
    if unknown or not chosen:
        raise UsageError(f"--formats {formats!r}: choose from {', '.join(_FORMATS)}")
    runs = load_runs(folders)
    for run in runs:
        if len(runs) > 1:
            print(f"{run.name}:")
        place = run.folder if output is None else output / run.name if len(runs) > 1 else output
        with _any_error_in_one_line(str(run.folder)):
            present(run.rows, place, chosen)
    write_page(runs, output or (runs[0].folder if len(runs) == 1 else Path()))


def write_page(runs: Sequence[Run], where: Path) -> None:
    """Write ``report.html`` into a folder and say so, or what it needs.

    Raises:
        UsageError: the folder cannot be written, or the rows cannot be shown.
    """
    if needed := missing():
        print(f"elbograd: no report.html: {needed}", file=sys.stderr)
        return
    with _any_error_in_one_line(", ".join(str(run.folder) for run in runs)):
        path = write_report(runs, where)
    print(f"report in {path} ({path.stat().st_size / 2**20:.1f} MiB)")


@contextmanager
def _any_error_in_one_line(folders: str) -> Iterator[None]:
    """Whatever goes wrong with rows that no benchmark of this suite wrote, in one line."""
    try:
        yield
    except (UsageError, OSError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"cannot show the rows of {folders}: {what}") from error
