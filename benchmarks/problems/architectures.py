"""The networks of the VAEs of images: MLPs, or convolutions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...estimators.pieces.arguments import one_of
from .layers import check_sizes, mlp

ARCHITECTURES = ("mlp", "conv")


class OfEach(nn.Module):
    """A network of a batch (N, inputs) -> (N, outputs), applied to any leading dimensions."""

    def __init__(self, network: nn.Module, outputs: int) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (*batch, inputs) to (*batch, outputs)."""
        leading = inputs.shape[:-1]
        out: Tensor = self.network(inputs.reshape(math.prod(leading), inputs.shape[-1]))
        return out.reshape(*leading, self.outputs)


def networks(
    architecture: str, side: int, latents: int, outputs: int, *, hidden: int, layers: int, channels: int
) -> tuple[nn.Module, nn.Module]:
    """Make an encoder x (B, side²) -> (B, outputs) and a decoder (*batch, latents) -> (*batch, side²).

    Args:
        architecture: "mlp", or "conv": two 4×4 convolutions of stride 2 before the encoder's MLP, and two
            transposed ones after the decoder's.
        side: pixels of an image's side, a multiple of 4 for convolutions.
        latents: numbers that the decoder is given.
        outputs: numbers that the encoder gives.
        hidden: units of each hidden layer.
        layers: hidden tanh layers of encoder and decoder each.
        channels: of the convolution at half the side; at a quarter there are twice as many.

    Raises:
        UsageError: another architecture, a size that is not a positive integer.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    check_sizes(hidden=hidden, layers=layers, channels=channels)
    if architecture == "mlp":
        return mlp(side**2, hidden, outputs, layers), mlp(latents, hidden, side**2, layers)
    small = 2 * channels, side // 4, side // 4
    encoder = nn.Sequential(
        nn.Unflatten(-1, (1, side, side)),
        *(nn.Conv2d(1, channels, 4, stride=2, padding=1), nn.Tanh()),
        *(nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.Tanh()),
        nn.Flatten(-3),
        *mlp(math.prod(small), hidden, outputs, layers),
    )
    decoder = nn.Sequential(
        *(*mlp(latents, hidden, math.prod(small), layers), nn.Tanh()),
        nn.Unflatten(-1, small),
        *(nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1), nn.Tanh()),
        nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
        nn.Flatten(-3),
    )
    return encoder, OfEach(decoder, side**2)
