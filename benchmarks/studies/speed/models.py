"""Models of the sizes that speed is measured at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...problems.layers import mlp, weights_from
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
        self.latent_dim, self.pixels = latent_dim, pixels
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
