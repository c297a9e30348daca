"""Performance profiles of training: how often an estimator's time to target is within a factor of the best.

Dolan & Moré (2002), "Benchmarking optimization software with performance profiles", Mathematical
Programming 91, 201–213. An instance is a workload with a target; the measure is the median time to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .targets import Reached, by_target

_RESAMPLES = 500
_CORNERS = 200  # of a drawn profile
_BAND = (0.025, 0.975)


@dataclass(frozen=True)
class Profile:
    """ρ(τ) of one estimator.

    Attributes:
        estimator: its specification.
        tau: from 1 on.
        share: of the instances on which its median time is at most τ times the least.
        low, high: pointwise 95% bootstrap band: seeds are drawn again, the same for all estimators.
    """

    estimator: str
    tau: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


def profiles(found: Sequence[Reached], unit: str = "step", seed: int = 0) -> list[Profile]:
    """Of every estimator that was trained on all workloads, the one with the largest area first.

    Empty where fewer than two estimators, or fewer than two instances that anyone reaches, are left. An
    instance with one run has no band.
    """
    instances = [group for group in by_target(found) if any(unit in one.times for one in group)]
    names = _everywhere(instances, unit)
    tables = [_times(group, names, unit) for group in instances]
    tables = [times for times in tables if np.isfinite(_medians(times)).any()]
    if len(names) < 2 or len(tables) < 2:
        return []
    ratios = _ratios([_medians(times) for times in tables])
    tau = np.geomspace(1, 1.3 * max(ratios[np.isfinite(ratios)].max(), 1.5), _CORNERS)
    share = _shares(ratios, tau)
    drawn = np.random.default_rng(seed)
    resampled = np.stack([_shares(_ratios(_again(tables, drawn)), tau) for _ in range(_RESAMPLES)])
    low, high = np.quantile(resampled, _BAND, axis=0)
    made = [Profile(name, tau, share[k], low[k], high[k]) for k, name in enumerate(names)]
    return sorted(made, key=lambda one: -one.share.mean())


def _everywhere(instances: Sequence[Sequence[Reached]], unit: str) -> list[str]:
    """Estimators that every instance has, in their order."""
    sets = [{one.estimator for one in group if unit in one.times} for group in instances]
    first = [one.estimator for one in instances[0]] if instances else []
    return [name for name in dict.fromkeys(first) if all(name in has for has in sets)]


def _times(group: Sequence[Reached], names: Sequence[str], unit: str) -> np.ndarray:
    """(estimators, seeds)."""
    of = {one.estimator: one.times[unit].times for one in group if unit in one.times}
    count = min(len(of[name]) for name in names) if names else 0
    return np.array([of[name][:count] for name in names], dtype=float)


def _medians(times: np.ndarray) -> np.ndarray:
    """When half of the runs are there, (estimators,): what the Kaplan–Meier curve says of one budget."""
    place = (times.shape[1] + 1) // 2 - 1
    return np.sort(times, axis=1)[:, place] if times.size else np.full(len(times), np.inf)


def _ratios(medians: Sequence[np.ndarray]) -> np.ndarray:
    """(estimators, instances) over the least of each instance; infinite where nobody is there."""
    table = np.stack(medians, axis=1)
    least = table.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(table), table / np.where(least > 0, least, 1.0), np.inf)


def _shares(ratios: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """(estimators, tau)."""
    return (np.maximum(ratios, 1.0)[:, :, None] <= tau * (1 + 1e-12)).mean(axis=1)


def _again(tables: Sequence[np.ndarray], drawn: np.random.Generator) -> list[np.ndarray]:
    return [_medians(times[:, drawn.integers(times.shape[1], size=times.shape[1])]) for times in tables]
