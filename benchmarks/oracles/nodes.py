"""Quadrature under Beta and von Mises posteriors: fixed nodes, and weights that carry the density."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from .gamma_nodes import legendre

_NEGLIGIBLE = 40.0  # −log of the density, relative to its peak, beyond which nothing counts


def beta_nodes(q: Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Points z (nodes^D, *batch, D) without a gradient, and weights (nodes^D, *batch) attached to φ.

    Gauss-Legendre in u = log z/(1 − z), where the density is σ(u)^α σ(−u)^β / B(α, β), over the range where
    that counts; a weight is that of the rule times q(z) dz/du.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    a, b = base.concentration1, base.concentration0
    with torch.no_grad():
        peak = a * (a / (a + b)).log() + b * (b / (a + b)).log()
        low, high = (peak - _NEGLIGIBLE) / a, (_NEGLIGIBLE - peak) / b
        points, weights = legendre(nodes)
        shape = (-1, *(1,) * low.dim())
        u = (high + low) / 2 + (high - low) / 2 * points.to(low).reshape(shape)
        axis = (high - low) / 2 * weights.to(low).reshape(shape)
        u, axis = _product(u), _product(axis)
    log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
    log_weights = a * logsigmoid(u) + b * logsigmoid(-u) - log_beta + axis.log()
    return u.sigmoid(), log_weights.sum(-1).exp()


def von_mises_nodes(q: Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Angles z (nodes^D, *batch, D) without a gradient, and weights (nodes^D, *batch) attached to φ.

    The trapezoidal rule on [−π, π), spectrally accurate for what is smooth and periodic.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    with torch.no_grad():
        points = torch.arange(nodes).to(base.loc) * (2 * math.pi / nodes) - math.pi
        z = _product(points.reshape(-1, *(1,) * base.loc.dim()).expand(-1, *base.loc.shape))
    return z, (base.log_prob(z) + math.log(2 * math.pi / nodes)).sum(-1).exp()


def _product(axis: Tensor) -> Tensor:
    """The tensor product (nodes^D, *batch, D) of D rules (nodes, *batch, D)."""
    dimension = axis.shape[-1]
    index = torch.cartesian_prod(*[torch.arange(len(axis))] * dimension).reshape(-1, dimension)
    return torch.stack([axis[index[:, j], ..., j] for j in range(dimension)], -1)
