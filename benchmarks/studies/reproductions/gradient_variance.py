"""Mohamed et al. 2020, figures 2 and 3: gradient variance for a quadratic, exponential and cosine cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...statistics.moments import Moments
from ...variance.measure import measure_variance
from .agreement import Variance, variances_agree
from .result import Claim, Curve, Panel, Reproduction

Array = NDArray[np.float64]
Cost = Callable[[Array], Array]

_ESTIMATORS = ("score-function", "reparameterization", "measure-valued")
_COSTS: dict[str, Callable[[Array, float], Array]] = {
    "quadratic": lambda z, k: (z - k) ** 2,
    "exponential": lambda z, k: np.exp(-k * z**2),
    "cosine": lambda z, k: np.cos(k * z),
}
_SLOPES: dict[str, Callable[[Array, float], Array]] = {
    "quadratic": lambda z, k: 2 * (z - k),
    "exponential": lambda z, k: -2 * k * z * np.exp(-k * z**2),
    "cosine": lambda z, k: -k * np.sin(k * z),
}
_GRIDS = {
    "quadratic": (-3.0, -2.0, -1.0, 0.0, 0.5, 1.5, 2.0, 3.0),
    "exponential": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    "cosine": (0.1, 0.3, 1.0, 2.0, 4.0, 8.0),
}
_NAMES = {"mean": "∂μ", "scale": "∂σ"}


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure every point and hold it against its closed form."""
    replicates = 20_000 if quick else 400_000
    grids = {cost: grid[::3] if quick else grid for cost, grid in _GRIDS.items()}
    found: dict[tuple[str, str, str], list[tuple[float, Moments]]] = {}
    for cost, grid in grids.items():
        for k in grid:
            for name in _ESTIMATORS:
                v = measure_variance(
                    f"{cost}[loc=1.0,scale=1.0,k={k}]",
                    name,
                    replicates=replicates,
                    seed=seed,
                    dtype="float64",
                )
                for part in _NAMES:
                    found.setdefault((cost, part, name), []).append((k, v.by_eta[part]))
    return Reproduction(
        "gradient-variance",
        "Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning, 2020, figures 2 and 3",
        f"One sample an estimate from N(1, 1); {replicates:,} estimates a point, 95% intervals; "
        "measure-valued coupled.",
        [_agreement(found), *_orderings()],
        [_panel(cost, part, found) for part in _NAMES for cost in grids],
        "The figures are given without numbers: ours are held against the variances that the formulas "
        "imply, and "
        "against what the text reads off the figures.",
    )


@cache
def exact_variance(cost: str, estimator: str, part: str, k: float) -> float:
    """Variance of one estimate at μ = σ = 1, by Gauss-Legendre quadrature of the densities."""
    f, slope = (lambda z: _COSTS[cost](z, k)), (lambda z: _SLOPES[cost](z, k))
    if estimator == "measure-valued":
        return _measure_valued(f, part)
    e, weights = _legendre(-12.0, 12.0, 600)
    weights = weights * np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)
    if estimator == "score-function":
        term = f(1 + e) * (e if part == "mean" else e**2 - 1)
    else:
        term = slope(1 + e) * (1.0 if part == "mean" else e)
    return float(weights @ term**2 - (weights @ term) ** 2)


def _measure_valued(f: Cost, part: str) -> float:
    """∂μ: (f(1 + W) − f(1 − W)) / √(2π), W Rayleigh; ∂σ: f(1 + M) − f(1 + U M), M Maxwell, U uniform."""
    if part == "mean":
        w, weights = _legendre(0.0, 12.0, 300)
        weights = weights * w * np.exp(-(w**2) / 2)
        term = (f(1 + w) - f(1 - w)) / np.sqrt(2 * np.pi)
    else:
        m, mass = _legendre(-12.0, 12.0, 400)
        u, length = _legendre(0.0, 1.0, 60)
        mass = mass * m**2 * np.exp(-(m**2) / 2) / np.sqrt(2 * np.pi)
        weights = np.outer(mass, length).ravel()
        term = (f(1 + m)[:, None] - f(1 + np.outer(m, u))).ravel()
    return float(weights @ term**2 - (weights @ term) ** 2)


@cache
def _legendre(low: float, high: float, nodes: int) -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def _agreement(found: dict[tuple[str, str, str], list[tuple[float, Moments]]]) -> Claim:
    """All measured variances against their closed forms."""
    return variances_agree(
        "variances agree with their closed forms",
        [
            Variance(moments, exact_variance(cost, estimator, part, k), rounding=1e-9)
            for (cost, part, estimator), measured in found.items()
            for k, moments in measured
        ],
    )


def _orderings() -> list[Claim]:
    """What the figures show, by the closed forms that the measurements were held against."""

    def v(cost: str, estimator: str, k: float, part: str = "mean") -> float:
        return exact_variance(cost, estimator, part, k)

    grid = np.linspace(-3, 3, 25)
    highest = all(
        v("quadratic", "score-function", k, part) > max(v("quadratic", e, k, part) for e in _ESTIMATORS[1:])
        for k in grid
        for part in _NAMES
    )
    near = v("quadratic", "measure-valued", 1.5) < v("quadratic", "reparameterization", 1.5)
    far = v("quadratic", "measure-valued", -2.0) > v("quadratic", "reparameterization", -2.0)
    claims = [
        Claim(
            "quadratic cost: the score function has the largest variance",
            f"at {len(grid)} values of k" if highest else "not for every k",
            "for every k",
            highest,
        ),
        Claim(
            "quadratic cost, ∂μ: measure-valued below pathwise near k = μ, above it far off",
            f"crossing at |k − μ| = {(4 / (16 / np.pi - 4)) ** 0.5:.3g} σ",
            "(16/π − 4) d² against 4 σ²",
            near and far,
        ),
    ]
    for cost in ("exponential", "cosine"):
        crossing = _crossing(cost)
        ends = _GRIDS[cost][0], _GRIDS[cost][-1]
        smooth = v(cost, "reparameterization", ends[0]) < v(cost, "score-function", ends[0])
        rough = v(cost, "reparameterization", ends[1]) > v(cost, "score-function", ends[1])
        claims.append(
            Claim(
                f"{cost} cost, ∂μ: pathwise is best where it is smooth, the score function where it is rough",
                f"crossing at k = {crossing:.3g}",
                "one crossing",
                smooth and rough,
            )
        )
    return claims


def _crossing(cost: str) -> float:
    """The k at which pathwise and score function have the same variance in μ."""
    low, high = _GRIDS[cost][0], _GRIDS[cost][-1]
    for _ in range(20):
        middle = (low * high) ** 0.5
        above = exact_variance(cost, "reparameterization", "mean", middle) > exact_variance(
            cost, "score-function", "mean", middle
        )
        low, high = (low, middle) if above else (middle, high)
    return low


def _panel(cost: str, part: str, found: dict[tuple[str, str, str], list[tuple[float, Moments]]]) -> Panel:
    curves = []
    linear = cost == "quadratic"
    for name in _ESTIMATORS:
        measured = [(k, m) for k, m in found[cost, part, name] if m.mean > 1e-9]
        ends = [m.interval() for _, m in measured]
        grid = _GRIDS[cost]
        line = np.linspace(grid[0], grid[-1], 41) if linear else np.geomspace(grid[0], grid[-1], 41)
        exact = [exact_variance(cost, name, part, float(k)) for k in line]
        kept = [(float(k), e) for k, e in zip(line, exact, strict=True) if e > 1e-6]
        curves.append(Curve(name, [k for k, _ in kept], [e for _, e in kept], exact=True))
        curves.append(
            Curve(
                name,
                [k for k, _ in measured],
                [m.mean for _, m in measured],
                [low for low, _ in ends],
                [high for _, high in ends],
            )
        )
    formula = {"quadratic": "(z − k)²", "exponential": "exp(−k z²)", "cosine": "cos(k z)"}[cost]
    return Panel(f"{formula}, {_NAMES[part]}", "k", "variance" if linear else "", curves, log_x=not linear)
