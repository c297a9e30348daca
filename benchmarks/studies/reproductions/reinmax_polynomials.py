"""Liu et al. 2023: ReinMax and straight-through on powers of |z − 0.45|, and where their descents end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ....estimators.plugins.registry import create
from ...gradients import eta_gradients, seeded
from ...oracles.objectives import exact_gradients
from ...problems.discrete_functions import CategoricalToy, DiscreteCost
from .agreement import Mean, cost_gradient, mean_points, means_agree, measure
from .result import Claim, Curve, Panel, Reproduction

_TARGET, _SHOWN, _START = 0.45, 0.3, 0.5
_POWERS = (1.5, 2.0, 3.0)
_PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
_ST, _REINMAX = "straight-through", "reinmax"
_SAMPLES = 64
_STEPS, _RATE, _DRAWS, _EVERY = 400, 5.0, 1000, 40
_NEAR = 0.002  # of the loss at the end
_LEVEL = 3.3  # standard errors, a level of 1e-3


class Power(DiscreteCost):
    """Cost |z − t|^a of one Bernoulli variable."""

    latent_dim = 1

    def __init__(self, power: float, p: float) -> None:
        super().__init__(torch.tensor([p], dtype=torch.float64).logit(), 1)
        self.power = power

    def cost(self, z: Tensor) -> Tensor:
        return (z - _TARGET).abs().pow(self.power).squeeze(-1)


def value(power: float, z: float) -> float:
    """f(z)."""
    return float(abs(z - _TARGET) ** power)


def slope(power: float, z: float) -> float:
    """f'(z)."""
    return float(power * abs(z - _TARGET) ** (power - 1) * np.sign(z - _TARGET))


def exact(power: float, p: float) -> float:
    """∂ E f in the logit: s (f(1) − f(0))."""
    return p * (1 - p) * (value(power, 1) - value(power, 0))


def straight_through(power: float, p: float) -> float:
    """E of s f'(z)."""
    return p * (1 - p) * ((1 - p) * slope(power, 0) + p * slope(power, 1))


def reinmax(power: float, p: float) -> float:
    """E of (2 π'(1 − π') − s/2) f'(z), π' = (p + z)/2, which is s (f'(0) + f'(1))/2."""
    s = p * (1 - p)
    zero, one = ((p + z) / 2 * (1 - (p + z) / 2) for z in (0, 1))
    return (1 - p) * (2 * zero - s / 2) * slope(power, 0) + p * (2 * one - s / 2) * slope(power, 1)


#: The mean in closed form.
EXACT: dict[str, Callable[[float, float], float]] = {_ST: straight_through, _REINMAX: reinmax}


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure both means over p for each power, then descend with each."""
    replicates = 2000 if quick else 50_000
    probabilities = _PROBABILITIES[1:4:2] if quick else _PROBABILITIES
    powers = _POWERS[1:2] if quick else _POWERS
    claims, above, below = [], [], []
    every: list[Mean] = []
    for power in powers:
        means = {
            name: [
                cost_gradient(measure(Power(power, p), name, replicates, seed, _SAMPLES), law(power, p))
                for p in probabilities
            ]
            for name, law in EXACT.items()
        }
        paths = {name: descend(power, name, seed) for name in EXACT}
        every += [m for found in means.values() for m in found]
        claims += [
            _ratio(power, means[_REINMAX][probabilities.index(_SHOWN)]),
            _end_of_straight_through(power, paths[_ST]),
            _end_of_reinmax(power, paths[_REINMAX]),
        ]
        above.append(_gradients(power, probabilities, means))
        below.append(_losses(power, paths))
    return Reproduction(
        "reinmax-polynomials",
        "Liu et al., Bridging Discrete and Backpropagation: Straight-Through and Beyond, 2023",
        f"f = |z − {_TARGET}|^power, one Bernoulli variable, temperature 1; {replicates:,} estimates a "
        f"point, {_SAMPLES} samples each; descents from p = {_START:g}, {_DRAWS:,} draws a step.",
        [means_agree("means agree with their closed forms", every), *claims, *_coupled(replicates, seed)],
        [*above, *below],
        "The publication minimizes the mean of many such terms, which are independent; here it is one, "
        "so that the means are exact.",
        "closed form of the mean",
    )


def descend(power: float, name: str, seed: int) -> list[float]:
    """Every p on the way of plain gradient descent on the cost."""
    problem, estimator = Power(power, _START), create(name)
    x = next(problem.batches("train", 1)).double()
    eta, path = problem.encoder(x).detach(), [_START]
    with seeded(seed, x.device):
        for _ in range(_STEPS):
            h = eta_gradients(problem, estimator, problem.target(x), eta, _DRAWS, 1)
            eta = eta + _RATE * h.mean(0)
            path.append(float(eta.sigmoid()))
    return path


def _ratio(power: float, of: Mean) -> Claim:
    truth = exact(power, _SHOWN)
    ratio, margin = float(of.measured) / truth, 1.96 * float(of.stderr) / truth
    trapezoid = (slope(power, 0) + slope(power, 1)) / 2 / (value(power, 1) - value(power, 0))
    return Claim(
        f"power {power:g}: mean of reinmax over the exact gradient",
        f"{ratio:.4f} ± {margin:.4f}",
        f"{trapezoid:.4f}, the trapezoidal rule's",
        abs(ratio - trapezoid) * truth <= _LEVEL * float(of.stderr),
    )


def _end_of_straight_through(power: float, path: list[float]) -> Claim:
    """Where its mean is zero, (1 − p) f'(0) + p f'(1) = 0, and not at the optimum."""
    end = float(np.mean(path[_STEPS // 2 :]))
    zero = slope(power, 0) / (slope(power, 0) - slope(power, 1))
    return Claim(
        f"power {power:g}: descending, straight-through stays where its mean is zero",
        f"p = {end:.3f}, loss {_loss(power, end):.4f}; the least is {value(power, 0):.4f}",
        f"p = {zero:.3f}, loss {_loss(power, zero):.4f}, to 0.005 in p",
        abs(end - zero) <= 0.005,
    )


def _end_of_reinmax(power: float, path: list[float]) -> Claim:
    return Claim(
        f"power {power:g}: descending, reinmax finds the optimum",
        f"p = {path[-1]:.3f}, loss {_loss(power, path[-1]):.4f}",
        f"{value(power, 0):.4f}, to {_NEAR:g}",
        _loss(power, path[-1]) - value(power, 0) <= _NEAR,
    )


def _coupled(replicates: int, seed: int) -> list[Claim]:
    """Quadratic costs that couple all pairs of three variables of four states."""
    found: dict[str, list[Mean]] = {}
    for which in range(3):
        problem = CategoricalToy(3, 4, which)
        problem.encoder.double()
        x = next(problem.batches("train", 1)).double()
        truth = exact_gradients(problem.posterior, problem.encoder(x).detach(), problem.target, x, [])
        assert not isinstance(truth, str)
        for name in EXACT:
            v = measure(problem, name, replicates // 4, seed, _SAMPLES)
            found.setdefault(name, []).append(cost_gradient(v, -truth.eta_grad[0]))
    off = max(m.largest for m in found[_ST])
    return [
        means_agree("coupled quadratics of K = 4 states: reinmax is exact", found[_REINMAX]),
        Claim(
            "straight-through is not",
            f"{off:,.0f} standard errors off",
            "more than 10",
            off > 10,
        ),
    ]


def _loss(power: float, p: float) -> float:
    return (1 - p) * value(power, 0) + p * value(power, 1)


def _gradients(power: float, probabilities: tuple[float, ...], means: dict[str, list[Mean]]) -> Panel:
    line = np.linspace(0.01, 0.99, 50).tolist()
    curves = [Curve("exact", line, [exact(power, p) for p in line], exact=True)]
    for name, law in EXACT.items():
        curves.append(Curve(name, line, [law(power, p) for p in line], exact=True))
        curves.append(mean_points(name, probabilities, means[name]))
    return Panel(f"power {power:g}", "p", "mean gradient", curves, log_x=False, log_y=False)


def _losses(power: float, paths: dict[str, list[float]]) -> Panel:
    """Descents along exact means as lines, measured ones as points."""
    curves = []
    for name, law in {"exact": exact, **EXACT}.items():
        path = [_START]
        for _ in range(_STEPS):
            logit = np.log(path[-1] / (1 - path[-1])) - _RATE * law(power, path[-1])
            path.append(float(1 / (1 + np.exp(-logit))))
        steps = list(range(len(path)))
        curves.append(Curve(name, steps, [_loss(power, p) for p in path], exact=True))
    for name, path in paths.items():
        shown = range(0, len(path), _EVERY)
        curves.append(Curve(name, list(shown), [_loss(power, path[at]) for at in shown]))
    return Panel(f"descent, power {power:g}", "step", "loss", curves, log_x=False, log_y=False)
