"""The data of a training run: shuffled batches without end, and what the objective is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ...estimators.isolation import Draws
from ..problems.placement import batches_of
from ..problems.protocol import Problem


def endless(problem: Problem, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Shuffled passes over the training data one after another, their whole batches x (batch_size, ...).

    Raises:
        UsageError: a pass holds none.
    """
    generator, draws = torch.Generator().manual_seed(seed), Draws(seed)
    while True:
        served = False
        for x in batches_of(problem, "train", batch_size, generator, draws, ahead=True):
            if len(x) == batch_size:
                served = True
                yield x
        if not served:
            raise UsageError(f"a pass over the training data holds no batch of {batch_size}")


def evaluation_data(problem: Problem, split: str, size: int) -> Tensor:
    """The first ``size`` data of a split, or as many as there are.

    Raises:
        UsageError: there are none.
    """
    parts: list[Tensor] = []
    for x in batches_of(problem, split, size):
        parts.append(x)
        if sum(map(len, parts)) >= size:
            break
    if not sum(map(len, parts)):
        raise UsageError(f"the problem has no data to evaluate on: batches({split!r}, ...) yields none")
    return torch.cat(parts)[:size]
