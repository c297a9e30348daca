"""A sigmoid belief network of two stochastic layers on the digits: the classic model of this literature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from ...estimators.base import Target
from ...estimators.posteriors.layered import Layered, reading
from .data import BinarizedDigits
from .layers import check_sizes, weights_from
from .vae import bernoulli_log_likelihood

_PIXELS = 64


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
        binarization: "dynamic" or "fixed".
        seed: of the initial weights.

    Raises:
        UsageError: a size that is not a positive integer, an unknown binarization.

    References:
        Neal, Connectionist Learning of Belief Networks, 1992.
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014.
    """

    def __init__(
        self, latent_dim: int = 8, upper_dim: int = 4, binarization: str = "dynamic", seed: int = 0
    ) -> None:
        check_sizes(latent_dim=latent_dim, upper_dim=upper_dim)
        self.latent_dim, self.upper_dim = latent_dim, upper_dim
        self.data = BinarizedDigits(binarization)
        with weights_from(seed):
            self.encoder: nn.Module = _Recognition(latent_dim, upper_dim)
            self.decoder: nn.Module = _Generation(latent_dim, upper_dim)

    def posterior(self, eta: Tensor) -> Distribution:
        """q(z¹, z²) for logits eta (*batch, D₁) of z¹."""
        upper: nn.Module = self.encoder.upper  # type: ignore[assignment]
        return Layered({"z1": _bits(eta), "z2": lambda z1: _bits(upper(z1))})

    def target(self, x: Tensor) -> Target:
        """log p(x|z¹) of Bernoulli pixels x (B, 64) in nats, and the prior p(z²) p(z¹|z²)."""
        prior_logits: Tensor = self.decoder.prior  # type: ignore[assignment]
        upper: nn.Module = self.decoder.upper  # type: ignore[assignment]
        lower: nn.Module = self.decoder.lower  # type: ignore[assignment]
        prior = Layered({"z1": lambda z2: _bits(upper(z2)), "z2": _bits(prior_logits)})

        def log_likelihood(z1: Tensor) -> Tensor:
            return bernoulli_log_likelihood(lower(z1), x)

        return Target(reading(prior, log_likelihood), prior, features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the digits of a split, x (B, 64)."""
        return self.data.batches(split, batch_size, generator)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each image in its split, (B,)."""
        return self.data.indexed_batches(split, batch_size, generator)


def _bits(logits: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


class _Recognition(nn.Module):
    """Holds φ: x (B, 64) to the logits of z¹, and z¹ to those of z²."""

    def __init__(self, latent_dim: int, upper_dim: int) -> None:
        super().__init__()
        self.lower = nn.Linear(_PIXELS, latent_dim)
        self.upper = nn.Linear(latent_dim, upper_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 64) to eta (B, D₁)."""
        eta: Tensor = self.lower(x)
        return eta


class _Generation(nn.Module):
    """Holds θ: the logits of z², z² to those of z¹, and z¹ to those of the pixels."""

    def __init__(self, latent_dim: int, upper_dim: int) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(upper_dim))
        self.upper = nn.Linear(upper_dim, latent_dim)
        self.lower = nn.Linear(latent_dim, _PIXELS)
