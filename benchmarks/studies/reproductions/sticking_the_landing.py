"""Roeder et al. 2017: the path-derivative gradient has no variance where q is the true posterior."""

from __future__ import annotations

import math

from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .result import Claim, Curve, Panel, Reproduction

_DISTANCES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ESTIMATORS = ("sticking-the-landing", "reparameterization", "reparameterization[kl=sampled]")


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Variance at the optimum and at growing distances from it."""
    replicates = 2000 if quick else 100_000
    distances = _DISTANCES[::2] if quick else _DISTANCES

    def measure(name: str, distance: float) -> VarianceResult:
        problem = f"conjugate[latent_dim=4,data_dim=8,distance={distance}]"
        return measure_variance(problem, name, replicates=replicates, seed=seed, dtype="float64")

    there = {name: measure(name, 0.0) for name in _ESTIMATORS}
    found = {name: [(d, measure(name, d)) for d in distances] for name in _ESTIMATORS}
    landing, usual = (there[name].total for name in _ESTIMATORS[:2])
    first, second = found[_ESTIMATORS[0]][:2]
    slope = math.log(second[1].total / first[1].total) / math.log(second[0] / first[0])
    return Reproduction(
        "sticking-the-landing",
        "Roeder, Wu & Duvenaud, Sticking the Landing, 2017, section 3",
        f"Linear-Gaussian VAE, D = 4, B = 64, S = 1, {replicates:,} estimates a point in float64; "
        f"distance: added to "
        "every coordinate of η at the true posterior.",
        [
            Claim(
                "no variance where q is the true posterior",
                f"{landing:.2g}, reparameterization {usual:.3g}",
                "0 to rounding (weights are in float32: 1e-12 of reparameterization)",
                landing <= 1e-12 * usual,
            ),
            Claim(
                "near it the variance falls with the square of the distance",
                f"slope {slope:.3f}",
                "2 to 0.1",
                abs(slope - 2) <= 0.1,
            ),
            Claim(
                "reparameterization keeps its variance",
                f"{found[_ESTIMATORS[1]][0][1].total / usual:.3f} of it at distance {distances[0]}",
                "1 to 0.05",
                abs(found[_ESTIMATORS[1]][0][1].total / usual - 1) <= 0.05,
            ),
        ],
        [
            Panel(
                "variance against the distance from the true posterior",
                "distance in η",
                "variance",
                [_curve(name, found[name]) for name in _ESTIMATORS],
            )
        ],
        "The paper shows traces of training; a model whose posterior is known lets the statement be "
        "tested exactly.",
    )


def _curve(name: str, measured: list[tuple[float, VarianceResult]]) -> Curve:
    return Curve(
        name,
        [d for d, _ in measured],
        [v.total for _, v in measured],
        [v.ci_low for _, v in measured],
        [v.ci_high for _, v in measured],
    )
