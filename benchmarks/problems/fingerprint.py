"""What tells one model's numbers, and one batch, from another's: short hashes for the rows of results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .protocol import Problem

_DIGITS = 12


def of_weights(problem: Problem) -> str:
    """Of all parameters and buffers of encoder and decoder: their names, shapes, types and every bit of them.

    The same on every device. A model without any has one too. It says nothing of what is computed with them.
    """
    named = (
        (f"{side}.{name}", tensor)
        for side, module in (("encoder", problem.encoder), ("decoder", problem.decoder))
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    )
    return _hash(named)


def of_batch(x: Tensor) -> str:
    """Of a batch x (B, ...): its shape, its type and every bit of it."""
    return _hash([("x", x)])


def _hash(named: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in named:
        if is_lazy(tensor):
            digest.update(f"{name} not made yet;".encode())
            continue
        if tensor.layout is not torch.strided or tensor.is_quantized:
            tensor = tensor.to_dense() if not tensor.is_quantized else tensor.dequantize()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:_DIGITS]


def _bytes(tensor: Tensor) -> memoryview:
    """The numbers as they lie in the memory of a contiguous tensor."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return memoryview(plain.flatten().view(torch.uint8).numpy().data) if plain.numel() else memoryview(b"")
