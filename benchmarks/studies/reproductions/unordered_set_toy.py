"""Kool et al. 2020: three Bernoulli variables that share a logit, sampled without replacement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

from ...statistics.moments import Moments
from .agreement import (
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
from .closed_forms import sample_covariance
from .result import Claim, Curve, Panel, Reproduction

_TARGETS = (0.6, 0.51, 0.48)
_LOGITS = (0.0, -4.0)
_SIZES = (2, 3, 4, 5)
_ALL = 2 ** len(_TARGETS)
_SET = "unordered-set"
_ROUNDING = 1e-15  # of the squared gradient


class Toy(NamedTuple):
    """All states of three variables: probabilities, costs, scores in the shared logit."""

    chance: list[float]
    cost: list[float]
    score: list[float]

    def expect(self, of: Callable[[float, float], float]) -> float:
        """E of a function of cost and score."""
        return math.fsum(q * of(f, s) for q, f, s in zip(*self, strict=True))

    @property
    def gradient(self) -> float:
        """E f ∇log q."""
        return self.expect(lambda f, s: f * s)


@cache
def toy(logit: float) -> Toy:
    """Enumerate the states."""
    p = 1 / (1 + math.exp(-logit))
    states = list(product((0, 1), repeat=len(_TARGETS)))
    return Toy(
        [math.prod(p if z else 1 - p for z in state) for state in states],
        [math.fsum((z - t) ** 2 for z, t in zip(state, _TARGETS, strict=True)) for state in states],
        [math.fsum(z - p for z in state) for state in states],
    )


def score_function(logit: float, samples: int) -> float:
    """Variance of the mean of f ∇log q over so many samples."""
    at = toy(logit)
    return (at.expect(lambda f, s: (f * s) ** 2) - at.gradient**2) / samples


def leave_one_out(logit: float, samples: int) -> float:
    """Variance by the moments of f and ∇log q."""
    at = toy(logit)
    average = at.expect(lambda f, s: f)
    both = at.expect(lambda f, s: ((f - average) * s) ** 2)
    apart = at.expect(lambda f, s: (f - average) ** 2) * at.expect(lambda f, s: s**2)
    return sample_covariance(both, at.gradient, apart, samples)


def unordered_set(logit: float, samples: int) -> tuple[float, float]:
    """Mean and variance of the estimator over all sets of so many states."""
    at, domain = toy(logit), frozenset(range(_ALL))
    drawn = [
        (_chance(logit, frozenset(s), domain), _of_set(logit, frozenset(s)))
        for s in combinations(domain, samples)
    ]
    average = math.fsum(chance * g for chance, g in drawn)
    return average, math.fsum(chance * (g - at.gradient) ** 2 for chance, g in drawn)


def _of_set(logit: float, drawn: frozenset[int]) -> float:
    """Σ_{s ∈ S} p_s R(S, s) (f_s − B_s) ∇log p_s, B_s = p_s f_s + Σ_{s' ≠ s} p_s' R^{D∖s}(S, s') f_s'."""
    at, domain = toy(logit), frozenset(range(_ALL))
    estimate = 0.0
    for s in drawn:
        others, rest = drawn - {s}, domain - {s}
        ratio = _chance(logit, others, rest) / _chance(logit, drawn, domain)
        baseline = at.chance[s] * at.cost[s]
        for t in others:
            second = _chance(logit, others - {t}, rest - {t}) / _chance(logit, others, rest)
            baseline += at.chance[t] * second * at.cost[t]
        estimate += at.chance[s] * ratio * (at.cost[s] - baseline) * at.score[s]
    return estimate


@cache
def _chance(logit: float, drawn: frozenset[int], domain: frozenset[int]) -> float:
    """P(S; D): that draws without replacement from these states give this set, summed over all orders."""
    if not drawn:
        return 1.0
    q = toy(logit).chance
    mass = math.fsum(q[s] for s in domain)
    return math.fsum(q[s] / mass * _chance(logit, drawn - {s}, domain - {s}) for s in drawn)


#: The enumerated variance at a logit, of so many samples.
EXACT: dict[str, Callable[[float, int], float]] = {
    "score-function": score_function,
    "leave-one-out": leave_one_out,
    _SET: lambda logit, samples: unordered_set(logit, samples)[1],
}


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure every estimator at both logits and hold mean and variance against enumeration."""
    replicates = 20_000 if quick else 200_000
    sizes = _SIZES[:2] if quick else _SIZES
    claims, panels = [], []
    for logit in _LOGITS:
        of_logit, panel = _at(logit, sizes, replicates, seed)
        claims += of_logit
        panels.append(panel)
    return Reproduction(
        "unordered-set-toy",
        "Kool, van Hoof & Welling, Estimating Gradients for Discrete Random Variables by Sampling without "
        "Replacement, 2020",
        f"f = Σ (zᵢ − tᵢ)², t = {', '.join(map(str, _TARGETS))}, three Bernoulli variables with one logit η; "
        f"{replicates:,} estimates a point.",
        claims,
        panels,
        "The paper draws a figure without numbers; ours are held against all sets of the eight states, "
        "each with its chance summed over orders.",
        "enumeration",
    )


def _at(logit: float, sizes: Sequence[int], replicates: int, seed: int) -> tuple[list[Claim], Panel]:
    at = toy(logit)
    found: dict[str, list[tuple[int, Moments]]] = {}
    means: list[Mean] = []
    for name in EXACT:
        for k in (1, *sizes) if name == "score-function" else sizes:
            v = measure(f"shared-logit[logit={logit}]", name, replicates, seed, k)
            found.setdefault(name, []).append((k, total(v)))
            means.append(cost_gradient(v, at.gradient))
    every = measure(f"shared-logit[logit={logit}]", _SET, 100, seed, _ALL)
    agreeing = {
        name: [Variance(m, EXACT[name](logit, k)) for k, m in measured] for name, measured in found.items()
    }
    where = _where(logit)
    claims = [
        variances_agree(
            f"variances agree with enumeration, {where}",
            [v for of_name in agreeing.values() for v in of_name],
        ),
        means_agree(f"means agree with the exact gradient, {where}", means),
        one_mean(f"{where}: gradient ({_SET}, k = {sizes[-1]})", means[-1]),
        one_variance(f"{where}: score-function, one sample", agreeing["score-function"][0]),
        one_variance(f"{where}: leave-one-out, two samples", agreeing["leave-one-out"][0]),
        *(
            one_variance(f"{where}: {_SET}, k = {k}", point)
            for k, point in zip(sizes, agreeing[_SET], strict=True)
        ),
        Claim(
            f"{where}: all {_ALL} states are the exact gradient",
            f"variance {every.total:.1g}",
            "0 to rounding",
            every.total <= _ROUNDING * at.gradient**2 and cost_gradient(every, at.gradient).largest <= 1,
        ),
        _ordering(logit),
    ]
    return claims, Panel(where, "samples k", "variance", _curves(logit, found), log_x=False)


def _where(logit: float) -> str:
    return f"η = {logit:g}".replace("-", "−")


def _ordering(logit: float) -> Claim:
    gains = [leave_one_out(logit, k) / unordered_set(logit, k)[1] for k in _SIZES]
    shown = ", ".join(f"{gain:,.0f}" if gain >= 100 else f"{gain:.3g}" for gain in gains)
    return Claim(
        f"{_where(logit)}: the unordered set below leave-one-out for every k",
        f"{shown} times less, k = {', '.join(map(str, _SIZES))}",
        "more than 1, by enumeration",
        min(gains) > 1,
    )


def _curves(logit: float, found: dict[str, list[tuple[int, Moments]]]) -> list[Curve]:
    curves = []
    for name, measured in found.items():
        sizes: Sequence[int] = [k for k, _ in measured]
        curves.append(
            Curve(name, [float(k) for k in sizes], [EXACT[name](logit, k) for k in sizes], exact=True)
        )
        curves.append(points(name, [float(k) for k in sizes], [m for _, m in measured]))
    return curves
