"""Models of the sizes that speed is measured at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ....estimators.base import Target
from ....estimators.posteriors.layered import Layered
from ...problems.layers import mlp, weights_from
from ...problems.likelihoods import bernoulli_log_likelihood
from ...problems.vae import GaussianVAE


class SizedVAE(GaussianVAE):
    """A Gaussian VAE of any size on random binary images: speed depends on sizes alone.

    Args:
        pixels: of an image.
        latent_dim: D.
        hidden: units of each hidden tanh layer.
        layers: hidden layers of encoder and decoder each.
    """

    def __init__(self, pixels: int, latent_dim: int, hidden: int, layers: int) -> None:
        self.latent_dim, self.pixels, self.kl_weight = latent_dim, pixels, 1.0
        self.label = f"{pixels} pixels, hidden {' × '.join([str(hidden)] * layers)}, D = {latent_dim}"
        with weights_from(0):
            self.encoder: nn.Module = mlp(pixels, hidden, 2 * latent_dim, layers)
            self.decoder: nn.Module = mlp(latent_dim, hidden, pixels, layers)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Binary noise, (batch_size, pixels), without end."""
        while True:
            yield (torch.rand(batch_size, self.pixels, generator=generator) < 0.2).float()

    @property
    def decoder_flops(self) -> int:
        """Multiplications and additions of the decoder's matrix products for one z."""
        layers = (m for m in self.decoder.modules() if isinstance(m, nn.Linear))
        return sum(2 * layer.weight.numel() for layer in layers)


#: The shared VAE, and two of the size that MNIST is modelled with.
SIZES = {
    "shared VAE": (64, 8, 64, 1),
    "MNIST, one hidden layer": (784, 20, 500, 1),
    "MNIST, two hidden layers": (784, 20, 500, 2),
}


class TwoLayerGaussian:
    """z¹ and z² Gaussian, q(z²|z¹) q(z¹|x) of MLPs, p(x|z¹) p(z¹|z²) p(z²), on random binary images.

    Args:
        pixels: of an image.
        latent_dim: D, of either layer.
        hidden: units of each network's hidden tanh layer.
    """

    def __init__(self, pixels: int = 64, latent_dim: int = 8, hidden: int = 32) -> None:
        self.latent_dim, self.pixels, self.kl_weight = latent_dim, pixels, 1.0
        with weights_from(0):
            self.encoder: nn.Module = _Recognition(pixels, latent_dim, hidden)
            self.decoder: nn.Module = nn.ModuleDict(
                {"z1": mlp(latent_dim, hidden, 2 * latent_dim, 1), "x": mlp(latent_dim, hidden, pixels, 1)}
            )

    def posterior(self, eta: Tensor) -> Distribution:
        """q(z²|z¹) q(z¹) for eta (*batch, 2D) of z¹."""
        upper: nn.Module = self.encoder.upper  # type: ignore[assignment]
        return Layered({"z1": _gaussian(eta), "z2": lambda z1: _gaussian(upper(z1))})

    def target(self, x: Tensor) -> Target:
        """log p(x|z¹) of Bernoulli pixels, and the prior p(z¹|z²) p(z²)."""
        networks: nn.ModuleDict = self.decoder  # type: ignore[assignment]
        prior = Layered(
            {
                "z1": lambda z2: _gaussian(networks["z1"](z2)),
                "z2": _gaussian(x.new_zeros(2 * self.latent_dim)),
            }
        )

        def log_likelihood(z: Tensor) -> Tensor:
            return bernoulli_log_likelihood(networks["x"](z[..., : self.latent_dim]), x)

        return Target(log_likelihood, prior, features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Binary noise, (batch_size, pixels), without end."""
        while True:
            yield (torch.rand(batch_size, self.pixels, generator=generator) < 0.2).float()


class _Recognition(nn.Module):
    def __init__(self, pixels: int, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.lower = mlp(pixels, hidden, 2 * latent_dim, 1)
        self.upper = mlp(latent_dim, hidden, 2 * latent_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        eta: Tensor = self.lower(x)
        return eta


def _gaussian(numbers: Tensor) -> Distribution:
    loc, log_scale = numbers.chunk(2, dim=-1)
    return Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)
