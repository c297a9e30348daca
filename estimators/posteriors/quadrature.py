"""Points and weights that integrate under q exactly or nearly so: enumeration, Gauss-Hermite."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

MAX_OUTCOMES = 4096
MAX_DIMENSIONS = 3
DEFAULT_NODES = {1: 200, 2: 64, 3: 32}


def outcomes(q: Distribution) -> int | None:
    """Number of values z can take, or None when the support is not finite."""
    supports = _supports(q)
    return None if supports is None else math.prod(len(values) for values in supports)


def enumerate_outcomes(q: Distribution) -> Shaped[Tensor, "outcomes *batch_event"]:
    """Every z, (outcomes, *batch, *event)."""
    supports = _supports(q)
    assert supports is not None, "the support is not finite"
    index = torch.cartesian_prod(*(torch.arange(len(values)) for values in supports))
    index = index.reshape(-1, len(supports))
    z = torch.stack([values[index[:, j]] for j, values in enumerate(supports)], 1)
    z = z.reshape(-1, *(1,) * len(q.batch_shape), *q.event_shape)
    return z.expand(-1, *q.batch_shape, *q.event_shape)


def _supports(q: Distribution) -> list[Tensor] | None:
    """What each of the independent variables that make up one event can be, or None where that is endless."""
    base = q.base_dist if isinstance(q, td.Independent) else q
    if not base.has_enumerate_support:
        return None
    event = q.event_shape[: q.reinterpreted_batch_ndims] if isinstance(q, td.Independent) else ()
    components = math.prod(event)
    if isinstance(base, td.Binomial):  # whose variables may have a count each
        counts = base.total_count.reshape(-1, components)
        if bool((counts != counts[0]).any()):
            return None  # nor are they the same for all data
        return [torch.arange(1 + int(count)).to(base.probs) for count in counts[0]]
    values = base.enumerate_support(expand=False)
    return [values.reshape(values.shape[0], *base.event_shape)] * components


def gaussian_dimension(q: Distribution) -> int | None:
    """D when q is a diagonal or full-covariance Gaussian with event shape (D,), else None."""
    base = q.base_dist if isinstance(q, td.Independent) else q
    if type(base) not in (td.Normal, td.MultivariateNormal) or len(q.event_shape) != 1:
        return None
    return q.event_shape[0]


def gauss_hermite(
    q: Distribution, nodes: int
) -> tuple[Float[Tensor, "points *batch D"], Float[Tensor, "points"]]:
    """Tensor Gauss-Hermite points z (nodes^D, *batch, D), attached to φ, and weights (nodes^D,)."""
    dimension = q.event_shape[0]
    points, weights = hermite_grid(dimension, nodes)
    loc = q.mean
    unit = points.to(loc).reshape(-1, *(1,) * len(q.batch_shape), dimension)
    if isinstance(q, td.MultivariateNormal):
        return loc + (q.scale_tril @ unit.unsqueeze(-1)).squeeze(-1), weights.to(loc)
    return loc + q.stddev * unit, weights.to(loc)


@lru_cache(maxsize=32)
def hermite_grid(
    dimension: int, nodes: int
) -> tuple[Float[Tensor, "points {dimension}"], Float[Tensor, "points"]]:
    """Points (nodes^D, D) and weights (nodes^D,) for N(0, I), in float64.

    SciPy's Golub-Welsch nodes; weights that underflow belong to points no sample reaches.
    """
    from scipy.special import roots_hermitenorm

    x, w = (torch.from_numpy(a) for a in roots_hermitenorm(nodes))
    w = w / w.sum()
    points = torch.cartesian_prod(*[x] * dimension).reshape(-1, dimension)
    weights = torch.cartesian_prod(*[w] * dimension).reshape(-1, dimension).prod(-1)
    return points, weights
