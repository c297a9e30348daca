"""How many data a batch was chosen from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ..problems.placement import batches_of
from ..problems.protocol import Problem

#: Batches that are looked at; beyond them a batch is less than 1% of the data, and so is the correction.
MOST = 100


def data_chosen_from(problem: Problem, x: Tensor) -> int | None:
    """N, the data of one pass over the training data; None where x is not some of them, or they are many.

    x (B, ...) that the caller brought, or that is augmented or binarized anew at each pass, was not chosen
    from N data: it is as good as drawn from infinitely many. At most `MOST` batches are asked for. A problem
    without data of its own is no error.
    """
    missing, found = set(_rows(x)), 0
    try:
        for index, batch in enumerate(batches_of(problem, "train", len(x))):
            if index == MOST:
                return None
            missing.difference_update(_rows(batch))
            found += len(batch)
    except UsageError:
        return None
    return None if missing or found < len(x) else found


def _rows(x: Tensor) -> Iterator[bytes]:
    """Each datum, byte by byte."""
    x = x.detach().to_dense() if x.layout != torch.strided else x.detach()
    for datum in x.cpu().contiguous().reshape(len(x), -1).view(torch.uint8).numpy():
        yield datum.tobytes()
