"""How long a loop takes to a relative precision of its total variance, from the replicates it drew."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
_RESAMPLES = 1000

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def replicates_needed(contributions: Vector, precision: float) -> int:
    """(1.96 CV/precision)²: where 1.96 standard errors of the mean contribution are ``precision`` of it."""
    cv = float(contributions.std(ddof=1) / contributions.mean())
    return max(2, math.ceil((_Z * cv / precision) ** 2))


@dataclass(frozen=True)
class LoopTime:
    """What a loop needs, bootstrapped over its replicates and over the rounds.

    Attributes:
        replicate: seconds a replicate, the median round.
        needed: replicates to the precision.
        total: their product, seconds.
        ratio: to the suite's median seconds, the same rounds resampled in both.
    """

    replicate: Quantity
    needed: Quantity
    total: Quantity
    ratio: Quantity


def loop_time(rounds: Vector, contributions: Vector, suite: Vector, precision: float, seed: int) -> LoopTime:
    """Time to ``precision``.

    Args:
        rounds: seconds a replicate, one value a round.
        contributions: one a replicate, of all rounds.
        suite: seconds of the suite's full measurement, one a round, the rounds being interleaved.
        precision: relative half-width at 95%.
        seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(rounds), size=(_RESAMPLES, len(rounds)))
    replicate, whole = np.median(rounds[picks], axis=1), np.median(suite[picks], axis=1)
    resampled = (generator.choice(contributions, len(contributions)) for _ in range(_RESAMPLES))
    needed = np.array([(_Z * c.std(ddof=1) / c.mean() / precision) ** 2 for c in resampled])
    each, r = float(np.median(rounds)), replicates_needed(contributions, precision)
    return LoopTime(
        _quantity(each, replicate),
        _quantity(r, needed),
        _quantity(each * r, replicate * needed),
        _quantity(each * r / float(np.median(suite)), replicate * needed / whole),
    )


def median_time(seconds: Vector, seed: int) -> Quantity:
    """Median of rounds, bootstrapped."""
    picks = np.random.default_rng(seed).integers(len(seconds), size=(_RESAMPLES, len(seconds)))
    return _quantity(float(np.median(seconds)), np.median(seconds[picks], axis=1))


def _quantity(value: float, resampled: Vector) -> Quantity:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Quantity(value, min(float(low), value), max(float(high), value))


def half_width(contributions: Vector) -> float:
    """Relative half-width of the 95% interval of the mean contribution."""
    return _Z * float(contributions.std(ddof=1) / contributions.mean()) / math.sqrt(len(contributions))
