"""How many replicates an interval needs to be trusted."""

from __future__ import annotations

import math

#: Above this skewness of the estimate an interval is not to be trusted (see `needed_replicates`).
MAX_SKEWNESS = 0.2
#: With fewer replicates neither the standard error nor the skewness is known.
MIN_REPLICATES = 20
_SHOWS_SKEWNESS = 5  # replicates
_ENOUGH = 1000  # at least what a sample too small for its own skewness is told to grow to
_LARGEST_SHARE = 0.95  # of its bound √n, that a sample's skewness is taken at its word for


def fewest_replicates(n: int) -> int | None:
    """What too small a number of replicates is told to grow to for that reason alone, or None."""
    if n >= MIN_REPLICATES:
        return None
    return MIN_REPLICATES if n >= _SHOWS_SKEWNESS else _ENOUGH


def needed_replicates(skewness: float, n: int) -> int:
    """Replicates at which the skewness of the estimate falls to `MAX_SKEWNESS`: 25 γ².

    n contributions cannot show a skewness γ above √n whatever the truth, so one that comes close to this
    is too low: γ = √n g/(1 − g²), g the skewness of the estimate. And never fewer than 1,000, as
    a sample that needs more shows little of its tail.
    """
    g = abs(skewness)
    true = g / (1 - min(g, _LARGEST_SHARE) ** 2)
    return max(math.ceil(n * (true / MAX_SKEWNESS) ** 2), _ENOUGH)
