"""Every seed that is made from the one a user gives, by its purpose. Imports no torch.

Two ways lead from one seed to another. `derived` moves it by a number of the purpose's own, the same for all
estimators, which so have their draws in common; consecutive seeds of a user are then no independent
repetitions of a purpose that moves it by as little. `hashed` gives a seed to whatever can be named.

What is drawn under the seed itself: the first batch, the order of the data, an estimator's warm-up, the
draws of a training run, and of its evaluation.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Purpose = Literal[
    "draws",
    "batch",
    "repetition",
    "tuning",
    "conformance",
    "cell",
    "look",
    "pilot",
    "reference",
    "calibration",
    "false alarms",
    "peer",
    "turn",
    "moments",
    "half",
]

#: purpose -> (offset of its first seed, distance between two). The values only have to stay what they are,
#: so that numbers can be had again, and to keep apart what meets in one measurement.
_PLACES: dict[Purpose, tuple[int, int]] = {
    "draws": (1, 0),  # replicates of a variance, apart from the warm-up before them
    "batch": (0, 1),  # the batches that throughput cycles through; the first is everybody's first batch
    "repetition": (0, 1),  # training runs of a convergence case
    "tuning": (10_007, 1),  # trials, apart from the repetitions that are reported
    "conformance": (20_240, 0),  # the conformance suite inside a certificate
    "cell": (104_729, 104_729),  # a point and an S of a certificate
    "look": (7919, 7919),  # at a cell, of which there are too few to reach the next cell
    "pilot": (87_109, 0),  # of a cell, behind its looks
    "reference": (7919, 7919),  # the two halves of a long run
    "calibration": (10_000_019, 10_000_019),  # its cells; a repetition uses two seeds
    "false alarms": (1_000_003, 1_000_003),  # whole certificates, from a multiple of this
    "peer": (1000, 1000),  # contenders of another library
    "turn": (0, 1),  # of the suite among its peers
    "moments": (500, 0),  # of the suite, apart from its turns
    "half": (0, 1),  # of those moments; nothing is warmed up, so that they are independent
}


def derived(seed: int, purpose: Purpose, index: int = 0) -> int:
    """The seed of the ``index``-th of a purpose's draws.

    >>> derived(3, "draws"), derived(3, "cell", 1)
    (4, 209461)
    """
    offset, distance = _PLACES[purpose]
    return seed + offset + distance * index


def hashed(seed: int, *what: object) -> int:
    """A seed for what is named, apart from the small numbers that users give: below 2**56."""
    text = "|".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
