"""A worker's side: making its process ready for a run, and measuring a case."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from ....estimators.errors import EstimatorError, UsageError
from ....estimators.isolation import contained
from ....estimators.plugins.finding import COPIES, load_plugin
from ....estimators.text import one_line
from ...cases.base import AnyCase, Output
from ...cases.session import Session, Tell, silent
from ..threads import computing_threads
from .base import Failure, Work


def make_ready(work: Work) -> None:
    """Turn a process of its own into one in which the user's names mean what they meant to the user.

    Raises:
        UsageError: a plugin does not load here.
    """
    if os.path.isdir(work.directory):
        os.chdir(work.directory)
    sys.path += [folder for folder in work.path if folder not in sys.path]
    for place, text in work.sources.items():
        _provide(place, text)
    for plugin in work.plugins:
        load_plugin(plugin)


def open_session(work: Work, tell: Tell = silent) -> Session:
    """What the cases measured in this process share; the run's folder where it can be seen from here."""
    folder = Path(work.folder)
    return Session(folder if folder.is_dir() else None, timings=work.timings, tell=tell)


def measure(case: AnyCase, session: Session, threads: int) -> Output | Failure:
    """What is found of a case, computing with so many threads; whatever goes wrong in it is a failure."""
    try:
        with computing_threads(threads), contained():
            return Output(case.kind.execute(case, session))
    except (UsageError, EstimatorError) as error:
        return Failure("refused", _type_and_message(error))
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return Failure("raised", _type_and_message(error))


def _provide(place: str, text: str) -> None:
    """See to it that this file is here and reads so."""
    file = Path(place).expanduser()
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    copy = Path(tempfile.mkdtemp(prefix="elbograd-")) / file.name
    copy.write_text(text, encoding="utf-8")
    COPIES[place] = str(copy)


def _type_and_message(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
