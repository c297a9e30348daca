"""Which buffers a forward pass changes: what a model remembers from one call to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .protocol import Problem


class _Buffer(NamedTuple):
    owner: nn.Module
    name: str  # in its owner
    path: str  # in the whole module
    tensor: Tensor
    version: int
    values: Tensor

    def is_changed(self) -> bool:
        """Whether it has other values, or was written to in train mode.

        What has converged (the power iteration of a spectral norm) is written with the bits it had on one
        processor, and with others on another.
        """
        now = getattr(self.owner, self.name)
        written = now is self.tensor and now._version != self.version and self.owner.training
        return written or not isinstance(now, Tensor) or not _equal(now, self.values)

    def restore(self) -> None:
        with torch.no_grad():
            self.tensor.copy_(self.values)
        setattr(self.owner, self.name, self.tensor)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[list[str]]:
    """Put the module's buffers back afterwards; the list then holds the paths of those that had changed."""
    before = list(_buffers_of(module))
    changed: list[str] = []
    try:
        yield changed
    finally:
        for buffer in before:
            if buffer.is_changed():
                changed.append(buffer.path)
                buffer.restore()


@contextmanager
def kept_buffers_of(problem: Problem) -> Iterator[None]:
    """Put the buffers of the encoder and of the decoder back afterwards."""
    with kept_buffers(problem.encoder), kept_buffers(problem.decoder):
        yield


def _buffers_of(module: nn.Module) -> Iterator[_Buffer]:
    for prefix, owner in module.named_modules():
        for name, tensor in owner.named_buffers(recurse=False):
            if not nn.parameter.is_lazy(tensor):
                path = f"{prefix}.{name}" if prefix else name
                yield _Buffer(owner, name, path, tensor, tensor._version, tensor.clone())


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits; NaN is NaN."""
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))
