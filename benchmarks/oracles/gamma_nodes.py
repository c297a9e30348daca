"""Quadrature under Gamma posteriors: fixed nodes, and weights that carry the density."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

_MAX_DIMENSIONS = 2
_NEGLIGIBLE = 40.0  # −log of the density, relative to its peak, beyond which nothing counts


def gamma_dimension(q: Distribution) -> int | None:
    """D when q is an Independent Gamma with event shape (D,), D at most 2; else None."""
    if type(q) is not td.Independent or type(q.base_dist) is not td.Gamma or len(q.event_shape) != 1:
        return None
    return q.event_shape[0] if q.event_shape[0] <= _MAX_DIMENSIONS else None


def gamma_nodes(q: Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Points z (nodes^D, *batch, D) without a gradient, and weights (nodes^D, *batch) attached to φ.

    Gauss-Legendre in u = log z over the range where the density e^{αu − βe^u} counts; a weight is that of
    the rule times q(z) dz/du.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    with torch.no_grad():
        concentration, rate = base.concentration, base.rate
        low = (concentration / rate).log() - _NEGLIGIBLE / concentration - 1
        high = ((concentration + _NEGLIGIBLE + 9 * concentration.sqrt()) / rate).log()
        points, weights = legendre(nodes)
        half = (high - low) / 2
        shape = (-1, *(1,) * low.dim())
        u = (high + low) / 2 + half * points.to(low).reshape(shape)  # (nodes, *batch, D)
        axis = half * weights.to(low).reshape(shape)
        index = torch.cartesian_prod(*[torch.arange(nodes)] * u.shape[-1]).reshape(-1, u.shape[-1])
        columns = range(u.shape[-1])
        u, axis = (torch.stack([t[index[:, j], ..., j] for j in columns], -1) for t in (u, axis))
        z = u.exp()
    return z, (base.log_prob(z) + u + axis.log()).sum(-1).exp()


@lru_cache(maxsize=8)
def legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points and weights on [−1, 1], float64."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy(points), torch.from_numpy(weights)
