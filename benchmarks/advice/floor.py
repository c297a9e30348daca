"""What differences in time cannot be told from those between two instances of the same code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics.intervals import student_quantile

_USUAL, _WEIGHT = 0.01, 4.0  # deviation that is assumed before any is seen, and as many controls' worth


@dataclass(frozen=True)
class Floor:
    """Random effects of instances on the logarithm of a ratio of seconds.

    Attributes:
        deviation: standard deviation of a ratio of two means over two instances each.
        degrees: of freedom that it is known with.
    """

    deviation: float = 0.0
    degrees: float = math.inf

    def reach(self, confidence: float) -> float:
        """Half-width that it gives an interval of the logarithm of a ratio."""
        return self.deviation * student_quantile(confidence, self.degrees) if self.deviation else 0.0


NO_FLOOR = Floor()


def floor_of(controls: Sequence[float]) -> Floor:
    """From the logarithms of the ratios of two instances each.

    Their variance is twice that of a ratio of means over two instances. Pooled over all estimators of a run;
    a hundredth is assumed with the weight of four, so that two controls which happen to agree do not say that
    all do.
    """
    squares = sum(c**2 / 2 for c in controls) + _WEIGHT * _USUAL**2
    degrees = len(controls) + _WEIGHT
    return Floor(math.sqrt(squares / degrees), degrees)
