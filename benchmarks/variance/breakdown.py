"""Where the variance comes from: by parameter, layer, part of eta and datum.

Shapes: B data, P coordinates of η, K replicates kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..linalg import square_trace, times
from ..problems.parts import layers_of
from ..statistics.moments import Moments, mean_moments
from .moments import Shares, bessel, central_moments


@dataclass(frozen=True)
class Breakdown:
    """Shares of the total variance; empty where a route does not know them.

    Attributes:
        by_parameter: of each parameter tensor.
        by_layer: of each module that holds parameters itself.
        by_datum: of each datum; they add up to the total.
        by_eta: part of eta -> variance of one datum's gradient in it, averaged over the batch.
        minibatch: variance of the exact batch-mean gradient over the choice of the batch; no share of it.
    """

    by_parameter: dict[str, Moments] = field(default_factory=dict)
    by_layer: dict[str, Moments] = field(default_factory=dict)
    by_datum: list[Moments] = field(default_factory=list)
    by_eta: dict[str, Moments] = field(default_factory=dict)
    minibatch: Moments | None = None


@dataclass(frozen=True)
class Replicates:
    """What n replicates of h show.

    Attributes:
        n: how many.
        mean: E h.
        covariance: Cov(h_i).
        kept: the first of them.
    """

    n: int
    mean: Float64[Tensor, "B P"]
    covariance: Float64[Tensor, "B P P"]
    kept: Float[Tensor, "B K P"]


def by_parameter(h: Replicates, grams: Mapping[str, Float64[Tensor, "B P P"]]) -> dict[str, Moments]:
    """Share of the total of each parameter tensor, from its share of K."""
    return {name: _share(h, gram) for name, gram in grams.items()}


def by_layer(h: Replicates, grams: Mapping[str, Float64[Tensor, "B P P"]]) -> dict[str, Moments]:
    """Share of the total of each module of the encoder that holds parameters itself."""
    return {
        layer: _share(h, torch.stack([grams[name] for name in names]).sum(0))
        for layer, names in layers_of(grams).items()
    }


def by_eta(h: Replicates, parts: Mapping[str, slice]) -> dict[str, Moments]:
    """Variance of one datum's h in each part of eta, averaged over the data of the batch."""
    batch, size = h.mean.shape
    result = {}
    for name, part in parts.items():
        inside = h.mean.new_zeros(size)
        inside[part] = batch  # (1/B²) Σ_i tr(C_i B 1) is the average over data
        result[name] = _share(h, torch.diag(inside).expand(batch, size, size))
    return result


def by_datum(h: Replicates, gram: Float64[Tensor, "B P P"]) -> list[Moments]:
    """Share of the total of each datum; they add up to it."""
    return _shares(h, gram).summarize_each(h.n)


def _share(h: Replicates, gram: Float64[Tensor, "B P P"]) -> Moments:
    """(1/B²) Σ_i tr(C_i G_i)."""
    return _shares(h, gram).summarize(h.n)


def _shares(h: Replicates, gram: Float64[Tensor, "B P P"]) -> Shares:
    """What each datum adds to it; the moments of contributions are those of the replicates kept."""
    product = gram @ h.covariance
    centred = h.kept - h.mean.unsqueeze(1).to(h.kept.dtype)
    contributions = ((centred @ gram.to(centred.dtype)) * centred).sum(-1, dtype=torch.float64)
    value = product.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(0)
    shares = Shares(value, *central_moments(contributions), square_trace(product))
    return shares.over(len(h.mean) ** 2)


def minibatch_variance(
    h: Replicates,
    gram: Float64[Tensor, "B P P"],
    gradient: dict[str, Tensor],
    reached: Float[Tensor, "B P"],
) -> Moments | None:
    """Variance of the batch-mean exact gradient over the choice of the batch; None for one datum.

    The sample variance over the data of the batch of J_iᵀ E h_i, over B, less what the Monte Carlo noise of
    the estimated E h_i adds to it: what is left when infinitely many samples are drawn. It takes the data of
    the batch for independent draws of the data set; its standard error is theirs.

    Args:
        h: of the data of the batch.
        gram: K_i.
        gradient: ḡ, their batch-mean gradient by parameter.
        reached: J_i ḡ.
    """
    batch = len(h.mean)
    if batch < 2:
        return None
    norm = sum(g.double().square().sum() for g in gradient.values())
    along = (h.mean * reached).sum(-1)
    distance = (h.mean * times(gram, h.mean)).sum(-1) - 2 * along + norm
    noise = (gram * h.covariance).sum((-1, -2)) / h.n
    # Less the noise in distance_i: (1 − 2/B) t_i + (1/B²) Σ t, with t_i = tr(K_i C_i)/n.
    distance = distance - (1 - 2 / batch) * noise - noise.sum() / batch**2
    u = distance * bessel(batch) / batch
    return mean_moments(u.cpu().numpy()) if u.mean() > 0 else None
