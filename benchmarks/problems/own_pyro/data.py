"""A user's data for Pyro programs: batches of one tensor each, and what the programs are given of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ....estimators.errors import UsageError
from ..data import check_split
from ..own_vae.data import sources
from ..own_vae.packing import Packing, Plain
from ..own_vae.problem import check_finite
from .running import Rows


class Data:
    """Data by split, as batches (B, ...).

    Args:
        data: as for `from_vae`; labels y are part of a batch where both programs take them.
        programs: the model and the guide.

    Attributes:
        batch_size: of a DataLoader; None where there is none.
    """

    def __init__(self, data: object, programs: tuple[Callable[..., object], ...]) -> None:
        self.sources, self.batch_size = sources(data)
        self.packing: Packing | Plain = Plain()
        x, y = self.sources["train"].gather(torch.arange(1))
        self.paired = y is not None and all(_takes_two(program) for program in programs)
        if y is not None and self.paired:
            self.packing = Packing(_numbers(x), y)

    def first(self, count: int) -> Tensor:
        """A batch of training data, at most so many."""
        return self._batch("train", torch.arange(min(count, self.sources["train"].size)))

    def rows(self, batch: Tensor) -> Rows:
        """What a program is called with, of a batch (N, ...)."""
        x, y = self.packing.unpack(batch)
        return (x,) if y is None else (x, y)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split: (B, ...), and the index (B,) of each datum."""
        check_split(split)
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not a positive integer")
        order = torch.arange(self.sources[split].size)
        if generator is not None:
            order = torch.randperm(len(order), generator=generator)
        for index in order.split(batch_size):
            yield self._batch(split, index), index

    def _batch(self, split: str, index: Tensor) -> Tensor:
        x, y = self.sources[split].gather(index)
        x = _numbers(x)
        check_finite(x, index)
        return self.packing.pack(x, y if self.paired else None)


def _numbers(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype()) if x.dtype == torch.bool else x


def _takes_two(program: Callable[..., object]) -> bool:
    """Whether a program takes a second argument that may be y: without a default, or None by default."""
    try:
        parameters = list(inspect.signature(program).parameters.values())
        inspect.signature(program).bind(None, None)
    except (TypeError, ValueError):
        return False
    return len(parameters) < 2 or parameters[1].default in (inspect.Parameter.empty, None)
