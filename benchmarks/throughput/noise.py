"""How much longer to time what is noisy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..statistics.timings import timing_interval

#: Half of an interval's width, of its median, from which on it is timed longer.
NOISY = 0.1
#: Times the seconds that were asked for, at most.
MOST = 3.0


def half_width(timings: Sequence[float]) -> float:
    """Of the 95% interval, in units of the median; infinite where there are too few."""
    value, low, high = timing_interval(timings)
    return (high - low) / 2 / value if value > 0 else math.inf


def is_noisy(timings: Sequence[float]) -> bool:
    """Whether more timings are wanted."""
    return half_width(timings) > NOISY


def factor(timings: Sequence[float]) -> float:
    """How many times as many timings would do, from 1 to 3: widths fall with the root of their number."""
    return min(MOST, max(1.0, (half_width(timings) / NOISY) ** 2)) if timings else 1.0
