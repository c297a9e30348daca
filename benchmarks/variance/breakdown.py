"""Where the variance comes from: by parameter, layer, part of eta and datum.

Shapes: B data, P coordinates of η, K replicates kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..linalg import square_trace
from ..problems.parts import layers_of
from ..statistics.moments import Moments
from .moments import Shares, central_moments


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
