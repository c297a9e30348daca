"""Objectives written out: in closed form, or as sums over the points and weights of `nodes`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.kl_weight import FreeBits
from ...estimators.pieces.enumeration import expected, recomputed
from ...estimators.pieces.objective import analytic_kl, has_kl, log_ratio, whole_kl
from .nodes import relaxed_bits
from .rules import Rule

_ROWS = 2**16  # points, or tuples of them, at a time


def closed_form(q: Distribution, target: Target) -> Float[Tensor, "*batch"]:
    """The target's own expectation less the KL, for a target and a pair of densities that have them."""
    assert target.expectation is not None
    divergence = whole_kl(q, target)
    assert divergence is not None
    return target.expectation(q) - divergence


def by_enumeration(q: Distribution, target: Target) -> Float[Tensor, "*batch"]:
    """The ELBO as a sum over all z, a bounded number of them at a time."""
    if isinstance(target.kl_weight, FreeBits):
        return expected(q, target, "analytic") - analytic_kl(q, target)
    return expected(q, target, "sampled")


def bound(q: Distribution, target: Target, rule: Rule, samples: int) -> Float[Tensor, "*batch"]:
    """E log (1/K) Σ_k p(x, z_k)/q(z_k) for K samples, over all K-tuples of points; the ELBO for K = 1.

    Of one sample log p(z)/q(z) is weighted as the target says.
    """
    z, weights = rule(q)
    if target.prior is not None and isinstance(target.kl_weight, FreeBits):
        return bound(q, replace(target, prior=None), rule, samples) - analytic_kl(q, target)
    return _bound(_log_weights(q, target, z, weights, _in_parts(q.log_prob, z)), weights, samples)


def wake(q: Distribution, target: Target, rule: Rule, samples: int) -> Float[Tensor, "*batch"]:
    """L_K attached to θ alone, and a zero whose gradient in φ is that of E_{p(z|x)}[log q(z)]."""
    z, weights = (part.detach() for part in rule(q))
    log_q = _in_parts(q.log_prob, z)
    log_w = _log_weights(q, target, z, weights, log_q.detach())
    fit = (_tempered(log_w, weights, 1.0).detach() * log_q).sum(0)
    return _bound(log_w, weights, samples) + fit - fit.detach()


def left_riemann_sum(
    q: Distribution, target: Target, rule: Rule, betas: Sequence[float]
) -> Float[Tensor, "*batch"]:
    """Σ_p (β_{p+1} − β_p) E_{π_β}[log w] at β = β_p, for π_β ∝ q w^β."""
    z, weights = rule(q)
    log_w = _log_weights(q, target, z, weights, _in_parts(q.log_prob, z))
    value = torch.zeros_like(log_w[0])
    for beta, following in pairwise(betas):
        value = value + (following - beta) * (_tempered(log_w, weights, beta) * log_w).sum(0)
    return value


def relaxed(q: Distribution, target: Target, nodes: int, temperature: float) -> Float[Tensor, "*batch"]:
    """E f(σ((φ + X)/τ)), X logistic, less the KL of the Bernoulli q itself."""
    z, weights = relaxed_bits(q, nodes, temperature)
    value = (weights * _in_parts(target.log_likelihood, z)).sum(0)
    if target.prior is None:
        return value
    nothing = replace(target, log_likelihood=lambda z: torch.zeros_like(q.log_prob(z)))
    return value + by_enumeration(q, nothing)


def _bound(
    log_w: Float[Tensor, "N *batch"], weights: Float[Tensor, "N *batch"], samples: int
) -> Float[Tensor, "*batch"]:
    """Over all tuples of ``samples`` points."""
    if samples == 1:
        return (weights * log_w).sum(0)

    def over(tuples: Tensor) -> Tensor:
        each = log_w[tuples].logsumexp(1) - math.log(samples)
        return (weights[tuples].prod(1) * each).sum(0)

    tuples = torch.cartesian_prod(*[torch.arange(len(log_w))] * samples)
    if len(tuples) <= _ROWS:
        return over(tuples)
    return torch.stack([recomputed(over, part) for part in tuples.split(_ROWS)]).sum(0)


def _tempered(
    log_w: Float[Tensor, "N *batch"], weights: Float[Tensor, "N *batch"], beta: float
) -> Float[Tensor, "N *batch"]:
    """Weights of the points under π_β ∝ q w^β, which sum to 1."""
    log_ratio = beta * log_w
    largest = log_ratio.detach().masked_fill(weights <= 0, -math.inf).max(0).values
    mass = weights * (log_ratio - largest).exp()
    return mass / mass.sum(0)


def _log_weights(
    q: Distribution,
    target: Target,
    z: Shaped[Tensor, "N ..."],
    weights: Float[Tensor, "N *batch"],
    log_q: Float[Tensor, "N *batch"],
) -> Float[Tensor, "N *batch"]:
    """log p(x|z) and the weighted log p(z)/q(z), if there is a KL, at points z (N, *batch, *event)."""
    log_w = _in_parts(target.log_likelihood, z)
    if target.prior is not None and has_kl(target):
        if isinstance(target.kl_weight, float):
            log_w = log_w + target.kl_weight * (_in_parts(target.prior.log_prob, z) - log_q)
        else:
            log_w = log_w + _in_parts(lambda z: log_ratio(q, target, z), z)
    # What no sample reaches may be −∞ there, and must not turn 0 × ∞ into NaN.
    return torch.where(weights.detach() > 0, log_w, torch.zeros_like(log_w))


def _in_parts(function: Callable[[Tensor], Tensor], z: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N *batch"]:
    """A function of every z, of which a backward pass through many of them keeps one number each."""
    if len(z) <= _ROWS:
        return function(z)
    return torch.cat([recomputed(function, part) for part in z.split(_ROWS)])
