"""A contender's process: requests as JSON lines on standard input, answers on standard output.

``python -m elbograd.benchmarks.studies.peers.worker LIBRARY THREADS``. Whatever a library prints goes to
standard error instead.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from ....estimators.text import one_line
from .cases import LIBRARIES

_PLACES = {
    "elbograd": ".suite_peer:SuitePeer",
    "torch": ".torch_loop:TorchLoop",
    "pyro": ".pyro_peer:PyroPeer",
    "storch": ".storch_peer:StorchPeer",
}


class Session:
    """Answers the requests of one parent; each is a method.

    Args:
        place: ``module:Class`` of the contender; a leading dot means beside this module.
        threads: of torch.
    """

    def __init__(self, place: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.distributions.Distribution.set_default_validate_args(False)
        module, _, name = place.partition(":")
        self._class = getattr(import_module(module, __package__), name)

    def prepare(
        self, problem: str, estimator: str, num_samples: int, method: str, point: str, state: str, seed: int
    ) -> dict[str, Any]:
        """Set up one case, and run it warm."""
        import torch

        from .shared import load
        from .sums import ReplicateSums

        shared = load(problem, estimator, num_samples, Path(point), Path(state))
        torch.manual_seed(seed)
        self._contender = self._class(shared, method)
        self._sums = ReplicateSums(shared)
        for _ in range(getattr(self._contender, "warm_up", 0)):
            self._contender.step()
        return {}

    def draw(self, n: int) -> dict[str, Any]:
        """Draw n replicates; the clock sees the gradient alone, not what is kept of it."""
        contender, sums, clock = self._contender, self._sums, time.perf_counter
        seconds, contributions = 0.0, []
        for _ in range(n):
            begin = clock()
            drawn = contender.step()
            seconds += clock() - begin
            contributions.append(sums.add(contender.read(drawn)))
        return {"seconds": seconds, "contributions": contributions}

    def summary(self) -> dict[str, Any]:
        """Moments of all that was drawn since `prepare`."""
        return self._sums.summary()

    def timed(self, precision: float, seed: int) -> dict[str, Any]:
        """The suite alone: one full measurement, timed."""
        return self._contender.timed(precision, seed)

    def moments(self, replicates: int, seed: int) -> dict[str, Any]:
        """The suite alone: variance and mean to compare."""
        return self._contender.moments(replicates, seed)


def serve(library: str, threads: int, requests: TextIO, answers: TextIO) -> None:
    """Answer until the requests end; what goes wrong is an answer too, in one line."""
    try:
        session = Session(_PLACES.get(library, library), threads)
        ready = {"version": version(LIBRARIES.get(library, "elbograd"))}
    except Exception as error:  # a library that is absent, or does not import here
        _answer(answers, {"error": f"{type(error).__name__}: {one_line(error)}"})
        return
    _answer(answers, ready)
    for line in requests:
        request = json.loads(line)
        try:
            reply = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # another library's code may raise anything
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {one_line(error)}"}
        _answer(answers, reply)


def _answer(answers: TextIO, reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def main() -> None:
    """Serve on the real standard output; everybody else's goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.argv[1], int(sys.argv[2]), sys.stdin, answers)


if __name__ == "__main__":
    main()
