"""Points and weights that integrate under a Gaussian nearly exactly: Gauss-Hermite."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .families import family_of, innermost

MAX_DIMENSIONS = 3
DEFAULT_NODES = {1: 200, 2: 64, 3: 32}


def gaussian_dimension(q: Distribution) -> int | None:
    """D when q is a diagonal or full-covariance Gaussian with event shape (D,), else None."""
    base = innermost(q)
    if family_of(base) not in (td.Normal, td.MultivariateNormal) or len(q.event_shape) != 1:
        return None
    return q.event_shape[0]


def gauss_hermite(
    q: Distribution, nodes: int, least: float = 0.0
) -> tuple[Float[Tensor, "points *batch D"], Float[Tensor, "points"]]:
    """Tensor Gauss-Hermite points z (points, *batch, D), attached to φ, and weights, as of `hermite_grid`."""
    dimension = q.event_shape[0]
    points, weights = hermite_grid(dimension, nodes, least)
    loc = q.mean
    unit = points.to(loc).reshape(-1, *(1,) * len(q.batch_shape), dimension)
    base = innermost(q)
    if isinstance(base, td.MultivariateNormal):
        return loc + (base.scale_tril @ unit.unsqueeze(-1)).squeeze(-1), weights.to(loc)
    return loc + q.stddev * unit, weights.to(loc)


@lru_cache(maxsize=32)
def hermite_grid(
    dimension: int, nodes: int, least: float = 0.0
) -> tuple[Float[Tensor, "points {dimension}"], Float[Tensor, "points"]]:
    """Points and weights for N(0, I), in float64: of nodes^D those whose weight is ``least`` or more.

    SciPy's Golub-Welsch nodes; weights that underflow belong to points no sample reaches.
    """
    from scipy.special import roots_hermitenorm

    x, w = (torch.from_numpy(a) for a in roots_hermitenorm(nodes))
    w = w / w.sum()
    points = torch.cartesian_prod(*[x] * dimension).reshape(-1, dimension)
    weights = torch.cartesian_prod(*[w] * dimension).reshape(-1, dimension).prod(-1)
    kept = weights >= least
    return points[kept], weights[kept]
