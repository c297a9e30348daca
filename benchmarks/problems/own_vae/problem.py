"""What `from_vae` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from ....estimators.base import FreeBits, Target
from ....estimators.errors import UsageError
from ..data import check_split
from .data import Source
from .sides import DecoderSide, EncoderSide


class VAEProblem:
    """A user's VAE as a `Problem`; see `from_vae`.

    Attributes:
        encoder: holds φ; their parameters under their names.
        decoder: holds θ, the parameters of a learned likelihood and prior among them.
        data: by split.
    """

    def __init__(
        self,
        encoder: EncoderSide,
        decoder: DecoderSide,
        data: Mapping[str, Source],
        condition: object,
        kl_weight: float | Mapping[str, float] | FreeBits,
        default_batch_size: int,
    ) -> None:
        self.encoder, self.decoder, self.data = encoder, decoder, dict(data)
        self.condition, self.kl_weight = condition, kl_weight
        self.default_batch_size = default_batch_size
        self.latent_dim = encoder._encoding.reading.latent.numel()

    @property
    def eta_parts(self) -> Mapping[str, slice]:
        """What the coordinates of eta are."""
        return self.encoder._encoding.reading.parts

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P)."""
        return self.encoder._encoding.reading.posterior(eta)

    def target(self, x: Tensor) -> Target:
        """The integrand for a batch (B, ...), x with its condition where there is one."""
        data, condition = self.encoder._encoding.packing.unpack(x)
        like = like_of(self.encoder, data)
        p = self.decoder._decoding.prior
        features = [part.to(like.dtype).reshape(len(x), -1) for part in (data, condition) if part is not None]
        return Target(
            partial(self._log_likelihood, data, condition, len(p.event)),
            p(like, condition),
            features=torch.cat(features, -1),
            kl_weight=self.kl_weight,
        )

    def _log_likelihood(self, x: Tensor, condition: Tensor | None, event: int, z: Tensor) -> Tensor:
        leading = z.shape[: z.dim() - event]
        found: Tensor = self.decoder(z, x, condition, leading)
        return found

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the data of a split, (B, ...) at a time."""
        for x, _ in self.indexed_batches(split, batch_size, generator):
            yield x

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each datum in its split, (B,)."""
        check_split(split)
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not a positive integer")
        source = self.data[split]
        order = torch.arange(source.size)
        if generator is not None:
            order = torch.randperm(source.size, generator=generator)
        for index in order.split(batch_size):
            yield batch_of(source, index, self.encoder, self.decoder, self.condition), index


def batch_of(
    source: Source, index: Tensor, encoder: EncoderSide, decoder: DecoderSide, condition: object
) -> Tensor:
    """x of the data of an index, with its condition where there is one, in one tensor (B, ...).

    Raises:
        UsageError: x is not finite, or not what the likelihood is one of.
    """
    x, y = chosen(source, index, condition)
    check_finite(x, index)
    decoder._decoding.likelihood.check_data(x)
    return encoder._encoding.packing.pack(x, y)


def chosen(source: Source, index: Tensor, condition: object) -> tuple[Tensor, Tensor | None]:
    """x (B, ...) and its condition (B, ...), of truth values floats.

    Raises:
        UsageError: a condition is asked for and there is no y; or what makes one of it fails.
    """
    x, y = source.gather(index)
    x = x.to(torch.get_default_dtype()) if x.dtype == torch.bool else x
    if condition is None or condition is False:
        return x, None
    if y is None:
        raise UsageError("condition= needs a y for each datum, and data holds x alone: give pairs (x, y)")
    if callable(condition):
        try:
            y = condition(y)
        except Exception as error:  # a user's function may raise anything
            raise UsageError(
                f"condition(y) fails ({type(error).__name__}: {error})".splitlines()[0]
            ) from error
        if not isinstance(y, Tensor) or y.shape[:1] != x.shape[:1]:
            raise UsageError(f"condition(y) returns {type(y).__name__}, not a tensor of {len(x)} conditions")
    return x, y


def check_finite(x: Tensor, index: Tensor) -> None:
    """Raise UsageError for a datum with NaN or infinity in it."""
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        bad = int(torch.isfinite(x.reshape(len(x), -1)).all(1).logical_not().nonzero()[0])
        raise UsageError(f"data: x of datum {int(index[bad])} holds NaN or infinity")


def like_of(encoder: EncoderSide, x: Tensor) -> Tensor:
    """A tensor of the dtype and the device that encoder computes with."""
    floating = (p for p in encoder.parameters() if p.is_floating_point())
    return next(floating, x if x.is_floating_point() else torch.zeros((), device=x.device))
