"""One line of the study of all intervals: a quantity whose truth is known, estimated again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Found(NamedTuple):
    """What one repetition prints; ``marked``: as not enough to be trusted."""

    value: float
    low: float
    high: float
    marked: bool = False


#: quantity -> what one repetition prints of it; what it does not print is left out.
Printed = Mapping[str, Found]


@dataclass(frozen=True)
class Quantities:
    """A case in which one or more printed quantities are known.

    Attributes:
        case: what is drawn, in a few words; no two alike.
        n: independent repetitions, data or seeds behind each number.
        truths: quantity -> its true value.
        draw: one repetition from a generator of its own.
        cautious: quantities whose interval may well cover more than it says, and why it is meant to is in the
            documentation: one-sided where 0 is not excluded, of timings that could depend on each other, or
            of all comparisons at once.
        share: of the study's repetitions, for what takes long.
        confidence: of the intervals.
    """

    case: str
    n: int
    truths: Mapping[str, float]
    draw: Callable[[np.random.Generator], Printed]
    cautious: frozenset[str] = frozenset()
    share: float = 1.0
    confidence: float = 0.95


def of_moments(moments: object) -> Found:
    """A variance, or a share of one, as rows print it."""
    low, high = moments.interval()  # type: ignore[attr-defined]
    return Found(moments.mean, low, high, moments.needed is not None)  # type: ignore[attr-defined]
