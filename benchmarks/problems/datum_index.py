"""Which data of a data set a batch holds, where a problem says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ...estimators.base import Target
from .protocol import Problem

_INDEX = WeakIdKeyDictionary()  # batch -> index, as long as the batch lives


def noted(x: Tensor, index: Tensor | None) -> Tensor:
    """x (B, ...) itself; `index_of` then knows the index (B,) of its data."""
    if index is not None:
        _INDEX[x] = index.to(device=x.device, dtype=torch.int64)
    return x


def index_of(x: Tensor) -> Tensor | None:
    """The index (B,) of the data of a batch that the suite was served, int64; None where none is known."""
    index: Tensor | None = _INDEX.get(x)
    return index


def target_of(problem: Problem, x: Tensor) -> Target:
    """The problem's target for x (B, ...), with the index of its data where that is known."""
    target = problem.target(x)
    if torch.compiler.is_compiling() or getattr(target, "index", x) is not None:
        return target  # or what is none, which whoever asked tells
    index = index_of(x)
    return target if index is None else replace(target, index=index)


def served(
    problem: Problem, split: str, batch_size: int, generator: torch.Generator | None
) -> Iterator[tuple[object, Tensor | None]]:
    """What a problem serves, with the index of the data where it has a method `indexed_batches`."""
    if _tells_indices(problem):
        yield from problem.indexed_batches(split, batch_size, generator)  # type: ignore[attr-defined]
        return
    for x in problem.batches(split, batch_size, generator):
        yield x, None


def _tells_indices(problem: Problem) -> bool:
    """Whether `indexed_batches` is of the data of `batches`, which a subclass may have replaced alone."""
    for names in (getattr(problem, "__dict__", {}), *map(vars, type(problem).__mro__)):
        if "indexed_batches" in names or "batches" in names:
            return "indexed_batches" in names
    return False
