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


def fresh_batches(
    problem: Problem, x: Tensor, generator: torch.Generator, *, without: bool = True
) -> Iterator[Tensor] | None:
    """Batches of the size of x (B, ...), without end, in passes over the training data shuffled anew.

    Which data are those of x is told by their index where the problem gives one, else by what they are:
    all that equal one of x are left out. What is left of one batch is filled up with the next.

    Args:
        problem: on its device.
        x: (B, ...), measured.
        generator: of the order.
        without: False to serve the data of x too.

    Returns:
        None where there are no other data: a problem of one batch, or one whose batches cannot be had.
    """
    batches = _endless(problem, x, generator, without)
    try:
        first = next(batches, None)
    except UsageError:
        return None
    return None if first is None else _chained(first, batches)


def _chained(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest


def _endless(problem: Problem, x: Tensor, generator: torch.Generator, without: bool) -> Iterator[Tensor]:
    size, measured = len(x), _keys(x, index_of(x))
    pieces: list[Tensor] = []
    indices: list[Tensor] = []
    while True:
        found = False
        for batch in batches_of(problem, "train", size, generator):
            if batch.shape[1:] != x.shape[1:] or batch.dtype != x.dtype:
                return
            index = index_of(batch)
            if without:
                kept = ~torch.isin(_keys(batch, index), measured)
                batch, index = batch[kept], None if index is None else index[kept]
            found = found or len(batch) > 0
            pieces.append(batch)
            if index is not None:
                indices.append(index)
            if sum(map(len, pieces)) >= size:
                whole = torch.cat(pieces)
                known = torch.cat(indices) if indices else None
                yield noted(whole[:size].clone(), None if known is None else known[:size])
                pieces, indices = [whole[size:]], [] if known is None else [known[size:]]
        if not found:
            return


def _keys(x: Tensor, index: Tensor | None) -> Tensor:
    """A number for each datum of x (B, ...), (B,): its index, or one made of its bits."""
    if index is not None:
        return index
    bits = x.detach().reshape(len(x), -1).contiguous()
    if bits.dtype != torch.bool:
        bits = bits.view(_BYTES[bits.element_size()])
    weights = torch.arange(1, bits.shape[1] + 1, device=x.device) * 0x9E3779B97F4A7C1 % 0x7FFFFFFFFFFFFFE7
    return (bits.long() * (weights | 1)).sum(1)  # wraps around, the same on every machine
