"""A sigmoid belief network of two stochastic layers on images: the classic model of this literature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from ...estimators.base import Target
from ...estimators.posteriors.layered import Layered, reading
from .datasets.images import Images
from .layers import check_sizes, weights_from
from .likelihoods import pixel_log_likelihood


class SigmoidBeliefNetwork:
    """z² → z¹ → x, all of them bits, each layer linear in the logits of the next; the prior is learned.

    p(z²) = Bernoulli(σ(c)), p(z¹|z²) = Bernoulli(σ(W z² + b)), p(x|z¹) = Bernoulli(σ(V z¹ + a));
    q(z|x) = q(z¹|x) q(z²|z¹), both linear too. A latent is z = (z¹, z²), D₁ + D₂ bits. eta are the logits of
    q(z¹|x); those of q(z²|z¹) come from a network that only z¹ reaches, so that the posterior holds part of φ
    itself: gradients in η are not the whole gradient, and variances take the full route. There is no
    closed-form KL: use kl=sampled.

    Args:
        latent_dim: D₁.
        upper_dim: D₂.
        binarization: "dynamic", "fixed", or "none" (or None) for intensities in [0, 1], whose likelihood is
            the continuous Bernoulli density.
        seed: of the initial weights.
        data: which images: "digits", "mnist-5k", "mnist", "fashion-mnist" or "omniglot".
        validation: how many training images are held out as split "validation"; None for what is usual of
            the data (`Images`).

    Raises:
        UsageError: a size that is not a positive integer, an unknown binarization or data set, or data that
            cannot be had.

    References:
        Neal, Connectionist Learning of Belief Networks, 1992.
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014.
    """

    def __init__(
        self,
        latent_dim: int = 8,
        upper_dim: int = 4,
        binarization: str | None = "dynamic",
        seed: int = 0,
        *,
        data: str = "digits",
        validation: int | None = None,
    ) -> None:
        check_sizes(latent_dim=latent_dim, upper_dim=upper_dim)
        self.latent_dim, self.upper_dim = latent_dim, upper_dim
        self.data = Images(data, binarization, validation)
        with weights_from(seed):
            self.encoder: nn.Module = _Recognition(self.data.pixels, latent_dim, upper_dim)
            self.decoder: nn.Module = _Generation(self.data.pixels, latent_dim, upper_dim)

    def posterior(self, eta: Tensor) -> Distribution:
        """q(z¹, z²) for logits eta (*batch, D₁) of z¹."""
        upper: nn.Module = self.encoder.upper  # type: ignore[assignment]
        return Layered({"z1": _bits(eta), "z2": lambda z1: _bits(upper(z1))})

    def target(self, x: Tensor) -> Target:
        """log p(x|z¹) of pixels x (B, pixels) in nats, and the prior p(z²) p(z¹|z²)."""
        prior_logits: Tensor = self.decoder.prior  # type: ignore[assignment]
        upper: nn.Module = self.decoder.upper  # type: ignore[assignment]
        lower: nn.Module = self.decoder.lower  # type: ignore[assignment]
        log_p = pixel_log_likelihood(self.data.binarization)
        prior = Layered({"z1": lambda z2: _bits(upper(z2)), "z2": _bits(prior_logits)})

        def log_likelihood(z1: Tensor) -> Tensor:
            return log_p(lower(z1), x)

        return Target(reading(prior, log_likelihood), prior, features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the images of a split, x (B, pixels)."""
        return self.data.batches(split, batch_size, generator)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each image in its split, (B,)."""
        return self.data.indexed_batches(split, batch_size, generator)


def _bits(logits: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


class _Recognition(nn.Module):
    """Holds φ: x (B, pixels) to the logits of z¹, and z¹ to those of z²."""

    def __init__(self, pixels: int, latent_dim: int, upper_dim: int) -> None:
        super().__init__()
        self.lower = nn.Linear(pixels, latent_dim)
        self.upper = nn.Linear(latent_dim, upper_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, pixels) to eta (B, D₁)."""
        eta: Tensor = self.lower(x)
        return eta


class _Generation(nn.Module):
    """Holds θ: the logits of z², z² to those of z¹, and z¹ to those of the pixels."""

    def __init__(self, pixels: int, latent_dim: int, upper_dim: int) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(upper_dim))
        self.upper = nn.Linear(upper_dim, latent_dim)
        self.lower = nn.Linear(latent_dim, pixels)
