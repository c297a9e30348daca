"""How many replicates go through the decoder at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat

import torch
from torch import Tensor, nn

from ..problems.protocol import Problem

_ELEMENTS = 2**21  # of the widest activation in one chunk: more no longer stays in the caches
_MAX_ROWS = 2**15
_WHOLE_ELEMENTS = 2**21
_GRADIENTS_ELEMENTS = 2**21
_MAX_REPLICATES = 2**10
_LARGEST_THRESHOLD = 2**25 - 2**16


def chunk_size(problem: Problem, x: Tensor, evaluations: int) -> int:
    """Replicates a chunk, a power of two; depends on sizes alone, so that results do not depend on memory.

    Args:
        problem: its decoder's widest activation bounds the rows that go through at once.
        x: (B, ...).
        evaluations: of log p(x|z), a datum and estimate.
    """
    rows = min(_MAX_ROWS, max(1, _ELEMENTS // _widest_activation(problem, x)))
    replicates = max(1, rows // (max(1, evaluations) * len(x)))
    return 1 << (replicates.bit_length() - 1)


def whole_chunk(widest: int, parameters: int) -> int:
    """The same of whole gradients, each of which is kept by parameter.

    Args:
        widest: numbers in the largest tensor of one replicate's pass.
        parameters: numbers in one gradient.
    """
    most = _WHOLE_ELEMENTS // max(1, widest), _GRADIENTS_ELEMENTS // max(1, parameters)
    return 1 << (max(1, min(_MAX_REPLICATES, *most)).bit_length() - 1)


def _widest_activation(problem: Problem, x: Tensor) -> int:
    """Elements per datum of the largest output of any module of the decoder."""
    with torch.no_grad(), widest_output(problem.decoder) as widest:
        q = problem.posterior(problem.encoder(x))
        problem.target(x).log_likelihood(q.sample(torch.Size((1,))))
    return max(1, widest[0] // len(x))


@contextmanager
def widest_output(*sides: nn.Module) -> Iterator[list[int]]:
    """Numbers in the largest output inside of any module of these, as the one entry of the list."""
    widest = [0]

    def note(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            widest[0] = max(widest[0], output.numel())

    handles = [module.register_forward_hook(note) for side in sides for module in side.modules()]
    try:
        yield widest
    finally:
        for handle in handles:
            handle.remove()


def split(total: int, size: int) -> Iterator[int]:
    """Sizes of the chunks that make up ``total``: each ``size``, the last what is left."""
    yield from repeat(size, total // size)
    if total % size:
        yield total % size


def keep_heap() -> None:
    """Have the C library keep freed memory for the next chunk instead of giving it back each time.

    glibc raises its thresholds for doing so to the size of the largest block freed, up to 32 MiB;
    fetching pages anew costs more than the arithmetic done in them.
    """
    torch.empty(_LARGEST_THRESHOLD, dtype=torch.uint8)
