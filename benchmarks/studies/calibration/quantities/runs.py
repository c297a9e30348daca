"""Timings, throughput, means over seeds, and changes from one run to another."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ....comparison.changes import changes
from ....rows.schema import row
from ....rows.seeds import mean_interval
from ....statistics.moments import mean_moments
from ....statistics.timings import timing_interval
from .base import Found, Printed, Quantities


def cases() -> Iterator[Quantities]:
    """Timings that depend on each other and have spikes; three seeds; two runs of ten cases."""
    for count in (6, 25, 250):
        for rho in (0.0, 0.6):
            yield _timed(count, rho)
    for seeds in (2, 3, 10):
        for tails in ("Gaussian", "skewed"):
            yield _seeds(seeds, tails)
    yield _compared()


def quick() -> Quantities:
    """Three seeds."""
    return _seeds(3, "Gaussian")


def _timed(count: int, rho: float) -> Quantities:
    def draw(generator: np.random.Generator) -> Printed:
        noise = generator.standard_normal(count)
        for t in range(1, count):
            noise[t] = rho * noise[t - 1] + math.sqrt(1 - rho**2) * noise[t]
        spikes = (noise > 0) & (generator.random(count) < 0.1)
        seconds = np.exp(0.1 * noise) * np.where(spikes, 1 + generator.pareto(1.5, count), 1.0)
        value, low, high = timing_interval([float(s) for s in seconds])
        return {"seconds": Found(value, low, high), "steps_per_second": Found(1 / value, 1 / high, 1 / low)}

    truth = {"seconds": 1.0, "steps_per_second": 1.0}
    return Quantities(f"spikes, ρ = {rho:g}", count, truth, draw, frozenset(truth))


def _seeds(seeds: int, tails: str) -> Quantities:
    """Where training ends: Gaussian, or with a tail of runs that got stuck."""

    def draw(generator: np.random.Generator) -> Printed:
        ends = (
            generator.standard_normal(seeds) if tails == "Gaussian" else 1 - generator.gamma(4, 0.25, seeds)
        )
        mean, low, high = (float(end) for end in mean_interval(ends))
        return {"heldout_objective": Found(mean, low, high)}

    return Quantities(f"{tails} over seeds", seeds, {"heldout_objective": 0.0}, draw)


def _compared() -> Quantities:
    """Two runs that differ in nothing: the first of ten ratios and five differences, all to hold at once."""

    def side(generator: np.random.Generator) -> pd.DataFrame:
        rows = []
        for index in range(10):
            moments = mean_moments(generator.exponential(size=1000))
            low, high = moments.interval()
            ends = {"value": moments.mean, "ci_low": low, "ci_high": high, "n": 1000}
            case = {"case": f"v{index}", "benchmark": "variance", "problem": "p", "estimator": f"e{index}"}
            rows.append(row(**case, num_samples=1, metric="variance", **ends))
        for index in range(5):
            case = {"case": f"t{index}", "benchmark": "convergence", "problem": "p", "estimator": f"e{index}"}
            for seed, end in enumerate(generator.standard_normal(3)):
                where = {"num_samples": 1, "step": 10, "seed": seed}
                rows.append(row(**case, **where, metric="heldout_objective", value=float(end)))
        return pd.DataFrame(rows)

    def draw(generator: np.random.Generator) -> Printed:
        found = changes(side(generator), side(generator), ("variance", "heldout_objective"))
        ratios, differences = (found[found["kind"] == kind] for kind in ("ratio", "difference"))
        inside = bool(((ratios["change_low"] <= 1) & (ratios["change_high"] >= 1)).all())
        inside &= bool(((differences["change_low"] <= 0) & (differences["change_high"] >= 0)).all())
        return {"all changes at once": Found(0.0, 0.0 if inside else 1.0, 1.0)}

    truth = {"all changes at once": 0.0}
    return Quantities("two runs alike, 15 changes", 1000, truth, draw, frozenset(truth), share=0.25)
