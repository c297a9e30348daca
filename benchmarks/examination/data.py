"""A look at what `batches` serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ...estimators.isolation import drawing_from
from ..problems.data import SPLITS
from ..problems.faults import Faults, all_of
from ..problems.placement import batches_of, default_batch_size, to_encoder
from ..problems.protocol import Problem

_SECONDS = 2.0  # for counting a data set
_HELD_OUT = "test"


@dataclass
class Served:
    """What was found of the data.

    Attributes:
        x: (B, ...), the first batch to train with; None where there is none. Where batches are pairs, their
            first tensors, to look further with.
        sizes: split -> how many data, in words.
        notes: what is no fault, and of interest.
    """

    x: Tensor | None = None
    sizes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def data_faults(problem: Problem, served: Served, batch_size: int | None, seed: int) -> Faults:
    """What is wrong with the data; fills ``served``."""
    size = default_batch_size(problem) if batch_size is None else batch_size
    told = [*all_of(_first_faults(problem, served, size, seed))]
    yield from told
    if served.x is None:
        return
    if served.sizes:  # what is served are tensors
        yield from all_of(_order_faults(problem, served, size, seed))
    yield from (text for text in all_of(_held_out_faults(problem, served, size)) if text not in told)


def _first_faults(problem: Problem, served: Served, size: int, seed: int) -> Faults:
    try:
        x = _first(problem, "train", size, seed)
    except UsageError as error:
        served.x = _of_pairs(problem, size, seed)
        yield str(error)
        return
    if x is None:
        yield f"batches('train', {size}, ...) yields nothing: yield x (B, ...) at a time"
        return
    served.x = x
    served.sizes["train"] = _count(problem, "train", size)
    if len(x) > size:
        yield f"batches('train', {size}, ...) yields {len(x)} data at a time, not the {size} of its argument"
    elif len(x) < size:
        yield (
            f"batch size {size} exceeds the {len(x)} data of the first training batch: give a smaller "
            f"--batch-size, or the problem an attribute default_batch_size = {len(x)}"
        )


def _order_faults(problem: Problem, served: Served, size: int, seed: int) -> Faults:
    x, again, other = (_first(problem, "train", size, s) for s in (seed, seed, seed + 1))
    if x is None or again is None or other is None:
        return
    if not _same(x, again):
        yield (
            "batches serves other data under the same generator: shuffle by it, as in "
            "torch.randperm(len(data), generator=generator)"
        )
    elif _same(x, other):
        served.notes.append("in the same order under every seed: batches does not ask its generator")


def _held_out_faults(problem: Problem, served: Served, size: int) -> Faults:
    if _first(problem, _HELD_OUT, size, None) is None:
        yield (
            f"batches({_HELD_OUT!r}, {size}, ...) yields nothing: serve held-out data, which convergence "
            "is judged on"
        )
    else:
        served.sizes[_HELD_OUT] = _count(problem, _HELD_OUT, size)


def _first(problem: Problem, split: str, size: int, seed: int | None) -> Tensor | None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    x = next(batches_of(problem, split, size, generator), None)
    return None if x is None or len(x) == 0 else x


def _count(problem: Problem, split: str, size: int) -> str:
    """How many data there are, as far as they can be counted in a moment."""
    count, began = 0, time.monotonic()
    for x in batches_of(problem, split, size):
        count += len(x)
        if time.monotonic() - began > _SECONDS:
            return f"more than {count:,}"
    return f"{count:,}"


def _of_pairs(problem: Problem, size: int, seed: int) -> Tensor | None:
    """The first tensor of the first batch, where batches are of several."""
    try:
        with drawing_from(seed):
            item = next(iter(problem.batches("train", size, torch.Generator().manual_seed(seed))), None)
        if isinstance(item, Mapping):
            item = next(iter(item.values()))
        elif isinstance(item, tuple | list):
            item = item[0]
        return to_encoder(problem, item) if isinstance(item, Tensor) and item.dim() > 0 else None
    except Exception:  # a user's method may raise anything, and what it was has been told
        return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def in_words(served: Served, splits: tuple[str, ...] = SPLITS) -> str:
    """How many data there are of each split."""
    names = {"train": "to train with", _HELD_OUT: "held out"}
    return ", ".join(f"{served.sizes[split]} {names[split]}" for split in splits if split in served.sizes)
