"""Shuffled training batches without the data that are measured, to train an estimator's state on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from .datum_index import index_of, noted
from .placement import batches_of
from .protocol import Problem

_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PATIENCE = 1000  # batches in a row without anything new, of a pass that may have no end


class FreshBatches:
    """Batches of the size of x (B, ...), in passes over the training data shuffled anew, without end.

    Which data are those of x is told by their index where both are known, else by what they are: all that
    equal one of x are left out. What is left of one batch is filled up with the next of data of that shape.
    Others that are fewer than B are repeated within a batch.

    Args:
        problem: on its device.
        x: (B, ...), measured.
        generator: of the order.
        without: False to serve the data of x too.

    Attributes:
        few: how many others a pass was found to hold where they are fewer than B; else None.
    """

    def __init__(self, problem: Problem, x: Tensor, generator: torch.Generator, without: bool) -> None:
        self.problem, self.x, self.generator, self.without = problem, x, generator, without
        self.few: int | None = None
        self._bits, self._index = _bits(x), index_of(x)
        self._waiting: dict[torch.Size, tuple[Tensor, Tensor | None]] = {}  # by the shape of a datum
        self._batches = self._endless()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        return next(self._batches)

    def _endless(self) -> Iterator[Tensor]:
        """Ends with a pass that holds nothing."""
        size = len(self.x)
        while True:
            found = idle = 0
            for batch in batches_of(self.problem, "train", size, self.generator):
                data, index = self._others(batch)
                found, idle = found + len(data), 0 if len(data) else idle + 1
                if idle == _PATIENCE:
                    break
                yield from self._whole(data, index)
            if not found:
                return
            if found < size:
                self.few = found
                shape = max(self._waiting, key=lambda key: len(self._waiting[key][0]))
                data, index = self._waiting.pop(shape)
                again = torch.arange(size, device=data.device) % len(data)
                yield noted(data[again], None if index is None else index[again])

    def _others(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        index = index_of(batch)
        if batch.dtype != self.x.dtype or batch.dim() != self.x.dim():
            return batch[:0], None  # of another kind than what the encoder is shown here
        if not self.without:
            return batch, index
        if index is not None and self._index is not None:
            kept = ~torch.isin(index, self._index)
        elif batch.shape[1:] == self.x.shape[1:]:
            kept = ~torch.isin(_bits(batch), self._bits)
        else:
            return batch, index
        return batch[kept], None if index is None else index[kept]

    def _whole(self, data: Tensor, index: Tensor | None) -> Iterator[Tensor]:
        """Batches of B from what has waited and what has come."""
        size, shape = len(self.x), data.shape[1:]
        if not len(data):
            return
        if shape in self._waiting:
            before, known = self._waiting.pop(shape)
            data = torch.cat((before, data))
            index = None if index is None or known is None else torch.cat((known, index))
        while len(data) >= size:
            yield noted(data[:size].clone(), None if index is None else index[:size])
            data, index = data[size:], None if index is None else index[size:]
        if len(data):
            self._waiting[shape] = data, index


def fresh_batches(
    problem: Problem, x: Tensor, generator: torch.Generator, *, without: bool = True
) -> FreshBatches | None:
    """`FreshBatches`; None where there are no other data, in a problem of one batch, or none can be had."""
    try:
        next(FreshBatches(problem, x, torch.Generator().set_state(generator.get_state()), without))
    except (UsageError, StopIteration):
        return None
    return FreshBatches(problem, x, generator, without)


def _bits(x: Tensor) -> Tensor:
    """A number for each datum of x (B, ...), (B,), made of its bits."""
    bits = x.detach().reshape(len(x), -1).contiguous()
    if bits.dtype != torch.bool:
        bits = bits.view(_BYTES[bits.element_size()])
    weights = torch.arange(1, bits.shape[1] + 1, device=x.device) * 0x9E3779B97F4A7C1 % 0x7FFFFFFFFFFFFFE7
    return (bits.long() * (weights | 1)).sum(1)  # wraps around, the same on every machine
