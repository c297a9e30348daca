"""Jang et al. 2017, Bengio et al. 2013: the bias of relaxed and straight-through gradients."""

from __future__ import annotations

import math

import numpy as np

from ...oracles.gumbel_means import gumbel_softmax_gradient, straight_through_gumbel_gradient
from .agreement import Mean, cost_gradient, mean_points, means_agree, measure, one_mean
from .closed_forms import Setting
from .disarm_toy import toy
from .result import Claim, Curve, Panel, Reproduction

_TARGET, _SHOWN = 0.45, 0.1
_TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0)
_PROBABILITIES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_SAMPLES = 64
_QUICK = 2  # takes every other
_STRAIGHT, _SOFT, _ST = "straight-through-gumbel-softmax", "gumbel-softmax", "straight-through"
_GUMBEL = {_STRAIGHT: straight_through_gumbel_gradient, _SOFT: gumbel_softmax_gradient}


def exact_mean(name: str, at: Setting, temperature: float) -> float:
    """The mean of the estimator in the logit, by quadrature over the logistic noise."""
    if name == _ST:
        return 2 * at.spread * (at.p - at.t)
    logit = math.log(at.p / (1 - at.p))
    return _GUMBEL[name](lambda z: 2 * (z - at.t), logit, temperature)


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure the means over temperatures and over p and hold them against quadrature."""
    replicates = 2000 if quick else 100_000
    temperatures = _TEMPERATURES[1::_QUICK] if quick else _TEMPERATURES
    probabilities = _PROBABILITIES[1::_QUICK] if quick else _PROBABILITIES

    def measured(name: str, p: float, temperature: float) -> Mean:
        at = Setting(p, _TARGET, 1)
        found = measure(toy(at), f"{name}[temperature={temperature}]", replicates, seed, _SAMPLES)
        return cost_gradient(found, exact_mean(name, at, temperature))

    by_temperature = {name: [measured(name, _SHOWN, tau) for tau in temperatures] for name in _GUMBEL}
    by_probability = {name: [measured(name, p, 1.0) for p in probabilities] for name in (*_GUMBEL, _ST)}
    shown = {
        (name, tau): by_temperature[name][temperatures.index(tau)] for name in _GUMBEL for tau in (1.0, 0.1)
    }
    every = [m for found in (by_temperature, by_probability) for means in found.values() for m in means]
    exact = Setting(_SHOWN, _TARGET, 1).gradient
    return Reproduction(
        "straight-through-bias",
        "Jang, Gu & Poole, 2017; Maddison, Mnih & Teh, 2017; Bengio, Léonard & Courville, 2013",
        f"f = (z − {_TARGET})², one Bernoulli variable; {replicates:,} estimates a point, {_SAMPLES} "
        "samples each.",
        [
            means_agree("means agree with quadrature", every),
            *(
                one_mean(f"{name}, p = {_SHOWN}, temperature {tau:g}: mean (unbiased: {exact:.3g})", m)
                for (name, tau), m in shown.items()
            ),
            _wrong_sign(shown[_STRAIGHT, 1.0], shown[_SOFT, 1.0], exact),
            _turn(_STRAIGHT),
            _turn(_SOFT),
        ],
        _panels(temperatures, by_temperature, probabilities, by_probability),
        "The publications call these estimators biased without a number; for one variable the means are "
        "integrals. gumbel-softmax is unbiased for its own, relaxed objective. What a wrong sign does to "
        "a descent is in reinmax-polynomials.",
        "quadrature of the mean",
    )


def _wrong_sign(straight: Mean, relaxed: Mean, exact: float) -> Claim:
    """Both at 5 standard errors beyond 0, on the other side than the exact gradient."""
    away = [-float(m.measured / m.stderr) * np.sign(exact) for m in (straight, relaxed)]
    return Claim(
        f"at p = {_SHOWN} and temperature 1 both have the wrong sign",
        f"{float(straight.measured):.4f} and {float(relaxed.measured):.4f} where {exact:.3g} is right",
        "more than 5 standard errors beyond 0",
        min(away) > 5,
    )


def _turn(name: str) -> Claim:
    """The temperature below which the sign is right, by quadrature."""
    at = Setting(_SHOWN, _TARGET, 1)
    low, high = 1e-3, 1.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if exact_mean(name, at, middle) > 0 else (low, middle)
    bias = abs(exact_mean(name, at, 1e-3) / at.gradient - 1)
    return Claim(
        f"{name}: the right sign at low temperatures alone, and no bias in the limit",
        f"below {high:.3g}; bias at 0.001 {100 * bias:.1f}%",
        "a temperature between 0.001 and 1; bias below 5%",
        low > 1e-3 and high < 1 and bias < 0.05,
    )


def _panels(
    temperatures: tuple[float, ...],
    by_temperature: dict[str, list[Mean]],
    probabilities: tuple[float, ...],
    by_probability: dict[str, list[Mean]],
) -> list[Panel]:
    taus = np.geomspace(_TEMPERATURES[0], _TEMPERATURES[-1], 41).tolist()
    line = np.linspace(0.01, 0.99, 50).tolist()
    at = [Setting(p, _TARGET, 1) for p in line]
    true = Setting(_SHOWN, _TARGET, 1)
    left = [Curve("exact", taus, [true.gradient] * len(taus), exact=True)]
    right = [Curve("exact", line, [a.gradient for a in at], exact=True)]
    for name, means in by_temperature.items():
        left.append(Curve(name, taus, [exact_mean(name, true, tau) for tau in taus], exact=True))
        left.append(mean_points(name, temperatures, means))
    for name, means in by_probability.items():
        values = [exact_mean(name, a, 1.0) for a in at]
        right.append(Curve(name, line, values, exact=True))
        right.append(mean_points(name, probabilities, means))
    return [
        Panel(f"p = {_SHOWN}", "temperature", "mean gradient", left, log_y=False),
        Panel("temperature 1", "p", "", right, log_x=False, log_y=False),
    ]
