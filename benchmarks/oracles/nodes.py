"""Points and weights under each family of posteriors: Σ of weight × f(point) is E_q[f], exactly or nearly so.

A gradient reaches q's parameters through one of the two. Under a Gaussian z = μ + σ ε is written out, and
under a flow its transforms are applied to that; elsewhere the points stay put and the weights carry q's
density, so that no reparameterization of torch's is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from ...estimators.posteriors.families import family_of
from ...estimators.posteriors.outcomes import enumerate_outcomes
from ...estimators.posteriors.quadrature import gauss_hermite

#: Points z, and a weight for each.
Nodes = tuple[Float[Tensor, "N *batch D"], Float[Tensor, "N *batch"]]

_NEGLIGIBLE = 40.0  # −log of the density, relative to its peak, beyond which nothing counts


def all_outcomes(q: Distribution) -> tuple[Shaped[Tensor, "N ..."], Float[Tensor, "N *batch"]]:
    """Every z (N, *batch, *event) that q can take, and its probability, which carries the gradient."""
    z = enumerate_outcomes(q)
    return z, q.log_prob(z).exp()


def gaussian_nodes(q: Distribution, nodes: int, least: float = 0.0) -> Nodes:
    """Gauss-Hermite under a Gaussian or a flow over one: points, which carry the gradient.

    N of them: of nodes^D those whose weight is ``least`` or more.
    """
    flow = family_of(q) is td.TransformedDistribution
    z, weights = gauss_hermite(q.base_dist if flow else q, nodes, least)  # type: ignore[attr-defined]
    for transform in q.transforms if flow else ():  # type: ignore[attr-defined]
        z = transform(z)
    return z, weights.reshape(-1, *(1,) * len(q.batch_shape)).expand(-1, *q.batch_shape)


def gamma_nodes(q: Distribution, nodes: int) -> Nodes:
    """Under a Gamma: N = nodes^D points, and weights that carry the gradient.

    Gauss-Legendre in u = log z over the range where the density e^{αu − βe^u} counts; a weight is that of
    the rule times q(z) dz/du.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    with torch.no_grad():
        concentration, rate = base.concentration, base.rate
        low = (concentration / rate).log() - _NEGLIGIBLE / concentration - 1
        high = ((concentration + _NEGLIGIBLE + 9 * concentration.sqrt()) / rate).log()
        u, axis = _legendre_between(low, high, nodes)
    z = u.exp()
    return z, (base.log_prob(z) + u + axis.log()).sum(-1).exp()


def beta_nodes(q: Distribution, nodes: int) -> Nodes:
    """Under a Beta: N = nodes^D points, and weights that carry the gradient.

    Gauss-Legendre in u = log z/(1 − z), where the density is σ(u)^α σ(−u)^β / B(α, β), over the range where
    that counts; a weight is that of the rule times q(z) dz/du.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    a, b = base.concentration1, base.concentration0
    with torch.no_grad():
        peak = a * (a / (a + b)).log() + b * (b / (a + b)).log()
        u, axis = _legendre_between((peak - _NEGLIGIBLE) / a, (_NEGLIGIBLE - peak) / b, nodes)
    log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
    log_weights = a * logsigmoid(u) + b * logsigmoid(-u) - log_beta + axis.log()
    return u.sigmoid(), log_weights.sum(-1).exp()


def von_mises_nodes(q: Distribution, nodes: int) -> Nodes:
    """Under a von Mises distribution: N = nodes^D angles, and weights that carry the gradient.

    The trapezoidal rule on [−π, π), spectrally accurate for what is smooth and periodic.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    with torch.no_grad():
        points = torch.arange(nodes).to(base.loc) * (2 * math.pi / nodes) - math.pi
        z = _product(points.reshape(-1, *(1,) * base.loc.dim()).expand(-1, *base.loc.shape))
    return z, (base.log_prob(z) + math.log(2 * math.pi / nodes)).sum(-1).exp()


def relaxed_bits(q: Distribution, nodes: int, temperature: float) -> Nodes:
    """Of σ((φ + X)/τ), X logistic, φ the logits of a Bernoulli: N = nodes^D points.

    The weights carry the gradient. The trapezoidal rule in s(v) = asinh v/2 + asinh x/2, v = (φ + x)/τ, whose
    points are close where σ(v) bends and where the noise is, and from there ever further apart.
    """
    base = q.base_dist  # type: ignore[attr-defined]
    phi = base.logits
    with torch.no_grad():

        def place(x: Tensor) -> Tensor:
            return ((phi + x) / (2 * temperature)).asinh() + (x / 2).asinh()

        low, high = torch.full_like(phi, -_NEGLIGIBLE), torch.full_like(phi, _NEGLIGIBLE)
        unit = torch.linspace(0, 1, nodes, dtype=phi.dtype, device=phi.device)
        s = torch.lerp(place(low), place(high), unit.reshape(-1, *(1,) * phi.dim()))
        x = _inverse(place, s, low, high)
        v = (phi + x) / temperature
        slope = 1 / (temperature * (4 + v.square()).sqrt()) + 1 / (4 + x.square()).sqrt()
        length = (place(high) - place(low)) / (nodes - 1) / slope
    noise = x + (phi.detach() - phi)  # of the same v
    weights = length * noise.sigmoid() * (-noise).sigmoid()
    return _product(v.sigmoid()), _product(weights).prod(-1)


def _inverse(increasing: Callable[[Tensor], Tensor], values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where a function takes these values, by halving."""
    low, high = low.expand_as(values), high.expand_as(values)
    for _ in range(60):
        middle = (low + high) / 2
        below = increasing(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _legendre_between(low: Tensor, high: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points between low and high (*batch, D), and lengths, both (nodes^D, *batch, D)."""
    points, weights = _legendre(nodes)
    half, shape = (high - low) / 2, (-1, *(1,) * low.dim())
    u = (high + low) / 2 + half * points.to(low).reshape(shape)
    return _product(u), _product(half * weights.to(low).reshape(shape))


def _product(axis: Tensor) -> Tensor:
    """The tensor product (nodes^D, *batch, D) of D rules (nodes, *batch, D)."""
    dimension = axis.shape[-1]
    index = torch.cartesian_prod(*[torch.arange(len(axis))] * dimension).reshape(-1, dimension)
    return torch.stack([axis[index[:, j], ..., j] for j in range(dimension)], -1)


@lru_cache(maxsize=8)
def _legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points and weights on [−1, 1], float64."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy(points), torch.from_numpy(weights)
