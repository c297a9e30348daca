"""log p(x|z) of pixels: bits, or intensities between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_SERIES = 0.01  # of logits² / 4: below it four terms of the series are exact to float64


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
    """log ∫₀¹ exp(a t) dt = a/2 + log(sinh(a/2) / (a/2)).

    torch's ContinuousBernoulli goes through probabilities, which end at 1 − ε: beyond logits of 16 in
    float32 its normalizer no longer grows.
    """
    half = logits / 2
    square = half.square()
    small = square < _SERIES
    series = square / 6 - square**2 / 180 + square**3 / 2835 - square**4 / 37800
    far = half.where(~small, torch.ones_like(half)).abs()  # where() passes gradients of both branches on
    return half + torch.where(small, series, far + torch.log(-torch.expm1(-2 * far) / (2 * far)))
