"""log p(x|z) of pixels: bits, or intensities between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_SERIES = 0.1  # below it three terms of the series, and their derivatives, are exact to 1e-13


def pixel_log_likelihood(binarization: str) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(x; logits) of images that are binarized in some way, or of "none" that are not."""
    return continuous_bernoulli_log_likelihood if binarization == "none" else bernoulli_log_likelihood


def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log Bernoulli(x; logits) summed over the last dimension; x (B, pixels) broadcasts from the right."""
    # One pass less over the largest tensor there is than x * logits - softplus(logits).
    return -torch.addcmul(nn.functional.softplus(logits), x, logits, value=-1).sum(-1)


def continuous_bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """The log density of intensities x in [0, 1] under continuous Bernoulli variables, summed likewise.

    p(x) = exp(logits · x) / ∫₀¹ exp(logits · t) dt, which is λˣ(1 − λ)¹⁻ˣ at λ = σ(logits) with what
    normalizes it over [0, 1]; in nats, of a density, so not to be compared with those of bits.

    References:
        Loaiza-Ganem & Cunningham, The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders, NeurIPS 2019.
    """
    return -torch.addcmul(_log_normalizer(logits), x, logits, value=-1).sum(-1)


def _log_normalizer(logits: Tensor) -> Tensor:
    """log ∫₀¹ exp(a t) dt = log((eᵃ − 1)/a), near 0 by its series, whose derivatives do not cancel.

    torch's ContinuousBernoulli goes through probabilities, which end at 1 − ε: beyond logits of 16 in
    float32 its normalizer no longer grows. It also takes half as long again.
    """
    size = logits.abs()
    small = size < _SERIES
    negative = -torch.where(small, 1.0, size)  # where() passes the gradients of both branches on
    far = nn.functional.relu(logits) + torch.log(torch.expm1(negative) / negative)
    square = logits.square()
    near = torch.add(square * (1 / 24 + square * (-1 / 2880 + square * (1 / 181440))), logits, alpha=0.5)
    return torch.where(small, near, far)
