"""Flipout: one perturbation of the weights for a batch, with signs of its own for each datum."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import affine
from ..pieces.weights import DrawnByLayer, LayerWeights


class Flipout(DrawnByLayer):
    r"""Share the perturbation of the weights by the batch, and flip its signs by r sᵀ for each datum.

    Of a linear layer with weights W_ij ~ N(M_ij, σ_ij²) datum n has W = M + (σ ∘ ε) ∘ (s_n r_nᵀ), with
    ε ~ N(0, 1) drawn once for the data that share the weights and s_n, r_n of independent random signs for
    every datum, sample, input and output: b_n = a_n M + ((a_n ∘ s_n)(σ ∘ ε)) ∘ r_n. A symmetric perturbation
    is as likely with any signs, so that each datum's estimate is that of reparameterization: unbiased for
    the ELBO, the KL in closed form. The data's perturbations are uncorrelated, yet not independent, since all
    have one |ε|. S evaluations of log p(x|w), one backward pass through it.

    Needs a network of linear layers, each applied once to one vector a datum (`Target.network`). Latents
    beside the weights are reparameterized. Where each datum has a posterior of its own the signs do nothing.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Linear, Network, Target, create
        >>> x = torch.ones(4, 2)
        >>> network = Network({"w": Linear(2, 1)}, lambda apply: -apply("w", x).squeeze(-1).square())
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 3), 1.0), 1)
        >>> target = Target(network.dense, network=network)
        >>> create("flipout")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Wen, Vicol, Ba, Tran & Grosse, Flipout: Efficient Pseudo-Independent Weight Perturbations on
        Mini-Batches, 2018, section 3.
    """

    @staticmethod
    def outputs(weights: LayerWeights, inputs: Tensor, rows: torch.Size) -> Tensor:
        layer, loc, scale = weights.layer, weights.loc, weights.scale
        noise = torch.randn((rows[0], *scale.shape), dtype=scale.dtype, device=scale.device)
        perturbation = scale * noise
        mean = affine(inputs, layer.matrix(loc), layer.offset(loc), weights.together)
        before, after = (_signs((*rows, size), mean) for size in (layer.inputs, layer.outputs))
        shift = affine(
            inputs * before, layer.matrix(perturbation), layer.offset(perturbation), weights.together
        )
        return torch.addcmul(mean, shift, after)


def _signs(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """±1 with equal chances."""
    return 2 * torch.randint(0, 2, shape, device=like.device).to(like.dtype) - 1
