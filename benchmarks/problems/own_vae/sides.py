"""The two sides of a user's VAE as the protocol has them: x -> eta, and z -> log p(x|z)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....estimators.errors import UsageError
from .callees import Callee
from .likelihoods import Likelihood
from .packing import Packing, Plain
from .priors import Prior
from .readings import Reading
from .views import View


class Encoding:
    """How a batch, x with its condition where there is one, becomes what the user's encoder returns.

    Attributes:
        reading: how that becomes eta.
        flattens: whether the encoder is given flat data.
    """

    reading: Reading

    def __init__(self, callee: Callee, packing: Packing | Plain) -> None:
        self.callee, self.packing, self.flattens = callee, packing, False

    def __call__(self, batch: Tensor) -> Any:
        """What the user's encoder returns for a batch (B, ...)."""
        x, condition = self.packing.unpack(batch)
        x = x.flatten(1) if self.flattens else x
        return self.callee(x) if condition is None else self.callee(x, condition)


class Decoding:
    """How latents become what the user's decoder returns, and that log p(x|z).

    Args:
        callee: the user's decoder.
        likelihood: of what it returns.
        latent: the shape of one z as the decoder takes it.
        forced: whether it is given x too.

    Attributes:
        prior: p(z).
    """

    prior: Prior

    def __init__(self, callee: Callee, likelihood: Likelihood, latent: torch.Size, forced: bool) -> None:
        self.callee, self.likelihood, self.latent, self.forced = callee, likelihood, latent, forced

    def __call__(self, z: Tensor, x: Tensor, condition: Tensor | None, leading: torch.Size) -> Any:
        """What the user's decoder returns for z (*leading, *event), flattened to (N, *latent)."""
        rows = z.reshape(leading.numel(), *self.latent)
        given = [t for t in (x if self.forced else None, condition) if t is not None]
        return self.callee(rows, *(t.expand(*leading, *t.shape[1:]).reshape(-1, *t.shape[1:]) for t in given))

    def log_likelihood(self, z: Tensor, x: Tensor, condition: Tensor | None, leading: torch.Size) -> Tensor:
        """Log p(x|z), (*leading), of z (*leading, *event)."""
        output = self(z, x, condition, leading)
        if isinstance(output, Tensor) and len(output) != leading.numel():
            raise UsageError(
                f"the decoder returns {tuple(output.shape)} for {leading.numel()} latents: its first "
                f"dimension must be theirs"
            )
        found: Tensor = self.likelihood(output, x, leading)
        return found


class EncoderSide(View):
    """x (B, ...) -> eta (B, P); shows φ under the user's names, and so has few of its own."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self._encoding = encoding

    def forward(self, batch: Tensor) -> Tensor:
        """Eta (B, P)."""
        return self._encoding.reading.eta(self._encoding(batch))


class DecoderSide(View):
    """z (*leading, *event), x (B, ...) -> log p(x|z) (*leading); shows θ, as `EncoderSide` does φ."""

    def __init__(self, decoding: Decoding) -> None:
        super().__init__()
        self._decoding = decoding

    def forward(self, z: Tensor, x: Tensor, condition: Tensor | None, leading: torch.Size) -> Tensor:
        """Log p(x|z), (*leading)."""
        return self._decoding.log_likelihood(z, x, condition, leading)
