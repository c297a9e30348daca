"""The child's end of a worker process: a case a line comes in, its rows a line go out."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from queue import SimpleQueue
from typing import Any, TextIO

from ....estimators.errors import UsageError
from ...cases.kinds import case_from_json
from .base import Failure, Work, encode
from .measure import make_ready, measure, open_session

_EVERY = 0.5  # seconds between two lines on what is being done


def main() -> None:
    """Answer until standard input ends, which it does when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a plugin prints must not get between the answers
    # A stream of its own, and sys.stdin none: a process that is forked here, such as a DataLoader's, closes
    # sys.stdin, and would wait for ever for the thread that was reading from it.
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as this process lives
    given = json.loads(asked.readline())
    work = Work(**{**given, "plugins": tuple(given["plugins"]), "path": tuple(given["path"])})
    questions: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked, questions), daemon=True).start()
    unfit = None
    try:
        make_ready(work)
    except UsageError as error:
        unfit = Failure("refused", str(error))
    question = questions.get()
    # Not before: by now the run has made its folder.
    session = open_session(work, _Telling(answers))
    while True:
        case = case_from_json(json.loads(question))
        _say(answers, encode(unfit or measure(case, session, work.threads)))
        question = questions.get()


class _Telling:
    """Lines on what is being done, between the answers, now and then."""

    def __init__(self, answers: TextIO) -> None:
        self._answers, self._last = answers, -float("inf")

    def __call__(self, text: str, share: float) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            _say(self._answers, {"told": [text, share]})


def _say(answers: TextIO, values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _listen(asked: TextIO, questions: SimpleQueue[str]) -> None:
    """Apart from the measuring, so that the end of the parent is noticed in the midst of a case."""
    for line in asked:
        questions.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
