"""Tucker et al. 2017: one Bernoulli variable, (z − 0.45)², and the exact variances of its estimators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...statistics.moments import Moments
from .agreement import (
    FAMILY_LEVEL,
    Mean,
    Variance,
    cost_gradient,
    means_agree,
    measure,
    one_mean,
    one_variance,
    points,
    total,
    variances_agree,
)
from .closed_forms import Setting, arm, disarm, leave_one_out, score_function
from .disarm_toy import toy
from .result import Claim, Curve, Panel, Reproduction

Array = NDArray[np.float64]

_TARGET, _SHOWN = 0.45, 0.3
_SMALLEST = 1e-12  # that is drawn
_ROUNDING = 1e-12  # of the squared gradient: at p = ½ disarm has no variance
_REBAR = "rebar[temperature=1,eta=1]"
_GRID = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
_QUICK_GRID = (0.1, 0.3, 0.8)


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure every estimator at every p and hold mean and variance against the exact ones."""
    replicates = 20_000 if quick else 400_000
    grid = _QUICK_GRID if quick else _GRID
    variances: dict[str, list[Moments]] = {name: [] for name in EXACT}
    means: dict[str, list[Mean]] = {name: [] for name in EXACT}
    for p in grid:
        at = Setting(p, _TARGET, 1)
        for name, (samples, _) in EXACT.items():
            found = measure(toy(at), name, replicates, seed, samples)
            variances[name].append(total(found))
            means[name].append(cost_gradient(found, at.gradient))
    agreeing = {
        name: [_point(m, name, Setting(p, _TARGET, 1)) for p, m in zip(grid, variances[name], strict=True)]
        for name in EXACT
    }
    shown, there = grid.index(_SHOWN), Setting(_SHOWN, _TARGET, 1)
    return Reproduction(
        "binary-toy",
        "Tucker et al., REBAR, 2017, toy; Yin & Zhou, ARM, 2019; Dong, Mnih & Tucker, DisARM, 2020",
        f"f = (z − {_TARGET})², one Bernoulli variable, S = 1 (score-function, rebar) or 2, {replicates:,} "
        "estimates a point; rebar at temperature 1, not tuned.",
        [
            variances_agree(
                "variances agree with their exact ones", [v for name in EXACT for v in agreeing[name]]
            ),
            means_agree("means agree with the exact gradient", [m for name in EXACT for m in means[name]]),
            one_mean(f"gradient at p = {_SHOWN} (rebar)", means[_REBAR][shown]),
            *(one_variance(f"{name} at p = {_SHOWN}, variance", agreeing[name][shown]) for name in EXACT),
            _deviation(agreeing[_REBAR][shown]),
            _ordering(),
        ],
        _panels(grid, variances),
        "The paper tunes temperature and scale of rebar while it trains; here both stay 1, at which its "
        f"variance is {rebar(there)[1] / score_function(there):.3g} times that of the score function at p "
        f"= {_SHOWN}, for three evaluations a sample instead of one.",
        "closed form; of rebar by quadrature",
    )


@cache
def rebar(at: Setting, temperature: float = 1.0, scale: float = 1.0, nodes: int = 200) -> tuple[float, float]:
    """Mean and variance of REBAR for one variable, by Gauss-Legendre quadrature over its uniform numbers.

    With c(ζ) = f(σ(ζ/τ)): ĝ = (f(b) − η c(ζ̃))(b − p) + η c'(ζ) − η c'(ζ̃) ∂ζ̃/∂φ. Here ζ = φ + logit u, and b
    says whether u > 1 − p; ζ̃ = φ + logit ũ, where ũ = v(1 − p) for b = 0 and 1 − (1 − v)p for b = 1, moves
    with φ by itself and through p.
    """
    v, weights = _unit_legendre(nodes)
    first = second = 0.0
    for b, chance in ((0.0, 1 - at.p), (1.0, at.p)):
        u, by_p = (v * chance, -v) if b == 0 else (1 - (1 - v) * chance, v - 1)
        relaxed = 1 / (1 + np.exp(-(np.log(at.p / (1 - at.p)) + np.log(u / (1 - u))) / temperature))
        value, slope = (relaxed - at.t) ** 2, 2 * (relaxed - at.t) * relaxed * (1 - relaxed) / temperature
        score = ((b - at.t) ** 2 - scale * value) * (b - at.p)
        given = score - scale * slope * (1 + by_p * at.spread / (u * (1 - u)))
        estimate = scale * slope[:, None] + given[None, :]  # ζ and ζ̃ are independent given b
        both = chance * weights[:, None] * weights[None, :]
        first += float((both * estimate).sum())
        second += float((both * estimate**2).sum())
    return first, second - first**2


def _unit_legendre(nodes: int) -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, w / 2


#: Samples an estimate, and the exact variance.
EXACT: dict[str, tuple[int, Callable[[Setting], float]]] = {
    "score-function": (1, score_function),
    "leave-one-out": (2, leave_one_out),
    "arm": (2, arm),
    "disarm": (2, disarm),
    _REBAR: (1, lambda at: rebar(at)[1]),
}


def _point(measured: Moments, name: str, at: Setting) -> Variance:
    return Variance(measured, EXACT[name][1](at), rounding=_ROUNDING * at.gradient**2)


def _deviation(point: Variance) -> Claim:
    low, high = point.measured.interval()
    return Claim(
        f"rebar at p = {_SHOWN}, standard deviation",
        f"{point.measured.mean**0.5:.4f} ({low**0.5:.4f} to {high**0.5:.4f})",
        f"{point.exact**0.5:.4f}",
        point.inside(1 - FAMILY_LEVEL),
    )


def _ordering() -> Claim:
    """disarm ≤ arm, disarm ≤ leave-one-out at every p."""
    grid = [Setting(p, _TARGET, 1) for p in np.linspace(0.01, 0.99, 99).tolist()]
    lowest = all(disarm(at) <= min(arm(at), leave_one_out(at)) for at in grid)
    at = Setting(0.5, _TARGET, 1)
    return Claim(
        "disarm has the least variance of the pairs",
        f"at p = ½ {disarm(at):.2g}, arm {arm(at):.2g}, leave-one-out {leave_one_out(at):.2g}",
        "at 99 values of p",
        lowest,
    )


def _panels(grid: Sequence[float], variances: dict[str, list[Moments]]) -> list[Panel]:
    # Close to ½, where the variance of disarm goes to 0.
    line = sorted([*np.linspace(0.02, 0.98, 97).tolist(), 0.497, 0.499, 0.501, 0.503])
    curves = []
    for name, (_, law) in EXACT.items():
        exact = [(p, law(Setting(p, _TARGET, 1))) for p in line]
        kept = [(p, v) for p, v in exact if v > _SMALLEST]
        shown = [(p, m) for p, m in zip(grid, variances[name], strict=True) if m.mean > _SMALLEST]
        curves += [
            Curve(name, [p for p, _ in kept], [v for _, v in kept], exact=True),
            points(name, [p for p, _ in shown], [m for _, m in shown]),
        ]
    return [Panel("variance of an estimate", "p", "variance", curves, log_x=False)]
