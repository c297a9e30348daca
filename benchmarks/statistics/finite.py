"""Samples drawn without replacement from few."""

from __future__ import annotations

import math
from dataclasses import replace

from .moments import Moments


def of_finite_population(infinite: Moments, fraction: float, noise: float = 0.0) -> Moments:
    """Moments of (1 − f) V̂, V̂ the estimate of a variance from a share f of the data that there are.

    The error of V̂ falls by √(1 − f), except for the share of it that is no choice of data. A t statistic from
    n of N draws has the skewness

        −γ/(6 √(n (1 − f))) [(1 − 2f) + (2 − f) q²]

    at its quantile q, which at q = 1.96 is that of infinitely many with γ (1 − 2f/3)/√(1 − f).

    Args:
        infinite: of V̂ as if from infinitely many.
        fraction: f, less than 1.
        noise: share of V̂ before a correction that the noise of the data's own values made up.

    References:
        Cochran, Sampling Techniques, 1977, chapter 2.
        Babu & Singh, Edgeworth Expansions for Sampling without Replacement from Finite Populations, 1985.
    """
    left = 1 - fraction
    error = math.sqrt(1 - fraction * (1 - noise) ** 2)
    return replace(
        infinite,
        mean=left * infinite.mean,
        stderr=left * error * infinite.stderr,
        skewness=infinite.skewness * (1 - 2 * fraction / 3) / error,
    )
