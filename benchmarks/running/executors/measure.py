"""A worker's side: making its process ready for a run, and measuring a case."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ....estimators.errors import EstimatorError, UsageError
from ....estimators.isolation import contained
from ....estimators.plugins.finding import COPIES, load_plugin
from ....estimators.text import one_line
from ...cases.grid import Case
from .base import Failure, Rows, Work


def make_ready(work: Work) -> None:
    """Turn a process of its own into one in which the user's names mean what they meant to the user.

    Raises:
        UsageError: a plugin does not load here.
    """
    if os.path.isdir(work.directory):
        os.chdir(work.directory)
    sys.path += [folder for folder in work.path if folder not in sys.path]
    for place, text in work.sources.items():
        _have(place, text)
    for plugin in work.plugins:
        load_plugin(plugin)


def measure(case: Case, work: Work) -> Rows | Failure:
    """A case's rows; whatever goes wrong in it is a failure."""
    from ...cases.execute import execute

    folder = Path(work.folder)
    try:
        with computing_threads(work.threads), contained():
            return execute(case, folder if folder.is_dir() else None, timings=work.timings)
    except (UsageError, EstimatorError) as error:
        return Failure("refused", _told(error))
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return Failure("raised", _told(error))


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Inside, torch and the linear algebra under NumPy use so many threads: others round otherwise."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _have(place: str, text: str) -> None:
    """See to it that this file is here and reads so."""
    file = Path(place).expanduser()
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    copy = Path(tempfile.mkdtemp(prefix="elbograd-")) / file.name
    copy.write_text(text, encoding="utf-8")
    COPIES[place] = str(copy)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
