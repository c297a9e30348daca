"""What a model must offer to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...estimators.base import Target


@runtime_checkable
class Problem(Protocol):
    """An encoder, a decoder, and the objective that joins them.

    Attributes:
        encoder: holds φ; maps x (B, ...) to eta (B, P), each datum alone.
        decoder: holds θ; may be empty.

    Optional attributes: ``eta_parts``, what the coordinates of eta are, as name -> slice, such as
    {"mean": slice(0, D), "log_scale": slice(D, 2 * D)}: variance is then told by part as well.
    ``indexed_batches``, a method like ``batches`` that yields x (B, ...) with the index (B,) of each datum in
    the data set: the target then has it, for estimators that keep something for each datum; and data that
    are drawn anew each time they are served (dynamic binarization) are known again.
    """

    encoder: nn.Module
    decoder: nn.Module

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P): batch shape (*batch), event shape (D,)."""
        ...

    def target(self, x: Tensor) -> Target:
        """The integrand for x (B, ...); log_likelihood accepts z (S, *batch, D) whose batch ends in B."""
        ...

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the real data of ``split`` ("train" or "test"), x (B, ...) at a time.

        A problem may have others: "validation", of data that "train" then leaves out.

        Shuffled by ``generator`` where one is given, in order otherwise; the last batch may be smaller.
        """
        ...
