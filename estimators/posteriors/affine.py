"""Gaussian latents whose means are affine in others: jointly Gaussian, so that moments and KL are algebra.

With ε all the noise in the order of drawing, every latent is z_l = m_l + A_l ε: a root has m = μ and
A = diag σ in its own columns, and a latent N(W z_p + b, diag σ²) has m = W m_p + b and A = W A_p, with diag σ
in its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .gaussians import is_diagonal_gaussian
from .layered import Layered


class Affine:
    """N(W z + b, diag σ²), of another latent z: a conditional of `Layered` that says what it is.

    Args:
        parent: the name of z.
        weight: W, (D, D of z).
        bias: b, (*batch, D) or (D,).
        scale: σ, (*batch, D) or (D,).
    """

    def __init__(
        self,
        parent: str,
        weight: Float[Tensor, "D D_parent"],
        bias: Float[Tensor, "*batch D"],
        scale: Float[Tensor, "*batch D"],
    ) -> None:
        self.parents = (parent,)
        self.weight, self.bias, self.scale = weight, bias, scale

    def __call__(self, **latents: Float[Tensor, "*rows D_parent"]) -> Distribution:
        """Given z (S, *batch, D of z)."""
        (z,) = latents.values()
        loc = z @ self.weight.T + self.bias
        return td.Independent(
            td.Normal(loc, self.scale.expand_as(loc), validate_args=False), 1, validate_args=False
        )


class Moments(NamedTuple):
    """Of one latent among jointly Gaussian ones, z = mean + loading ε."""

    mean: Float[Tensor, "*batch D"]
    loading: Float[Tensor, "*batch D noise"]

    @property
    def second(self) -> Float[Tensor, "*batch D"]:
        """E z², number by number."""
        return self.mean.square() + self.loading.square().sum(-1)

    def through(self, weight: Float[Tensor, "D_out D"], bias: Float[Tensor, "*batch D_out"]) -> Moments:
        """Those of W z + b."""
        return Moments(self.mean @ weight.T + bias, weight @ self.loading)

    def less(self, other: Moments) -> Moments:
        """Those of the difference of two latents."""
        return Moments(self.mean - other.mean, self.loading - other.loading)


def moments(q: Layered) -> dict[str, Moments] | None:
    """The moments of every latent, by name, attached to φ; None where some conditional is not `Affine`."""
    if not is_affine(q):
        return None
    noise = sum(q.sizes.values())
    found: dict[str, Moments] = {}
    start = 0
    for name in q.order:
        stop = start + q.sizes[name]
        layer = q.layers[name]
        if isinstance(layer, Affine):
            mean, loading = found[layer.parents[0]].through(layer.weight, layer.bias)
            scale = layer.scale
        else:
            mean, scale = layer.base_dist.loc, layer.base_dist.scale  # type: ignore[union-attr]
            loading = mean.new_zeros(mean.shape[-1], noise)
        mean = mean.expand(*q.batch_shape, -1)
        own = torch.diag_embed(scale.expand_as(mean))
        rest = [mean.new_zeros(*mean.shape, size) for size in (start, noise - stop)]
        found[name] = Moments(mean, loading + torch.cat((rest[0], own, rest[1]), -1))
        start = stop
    return found


def is_affine(q: Distribution) -> bool:
    """Whether all latents are Gaussian vectors, on their own or affine in one another."""
    return isinstance(q, Layered) and all(
        isinstance(layer, Affine)
        or (isinstance(layer, Distribution) and is_diagonal_gaussian(layer) and len(layer.event_shape) == 1)
        for layer in q.layers.values()
    )


def kls(q: Layered, prior: Layered) -> dict[str, Float[Tensor, "*batch"]] | None:
    """E_q[log q_l − log p_l] of every latent given those it depends on, (*batch), by name; or None.

    In whatever order either side draws them: the residual of z_l about its mean under p is Gaussian under q.
    """
    of_q = moments(q)
    if of_q is None or not is_affine(prior):
        return None
    found = {}
    for name, own in of_q.items():
        other = prior.layers[name]
        if isinstance(other, Affine):
            residual = own.less(of_q[other.parents[0]].through(other.weight, other.bias))
            scale = other.scale
        else:
            base = other.base_dist  # type: ignore[union-attr]
            residual, scale = Moments(own.mean - base.loc, own.loading), base.scale
        ratio = (residual.second / scale.square() - 1) / 2 + scale.log() - _scale(q, name).log()
        found[name] = ratio.sum(-1).expand(q.batch_shape)
    return found


def _scale(q: Layered, name: str) -> Tensor:
    layer = q.layers[name]
    if isinstance(layer, Affine):
        return layer.scale
    scale: Tensor = layer.base_dist.scale  # type: ignore[union-attr]
    return scale
