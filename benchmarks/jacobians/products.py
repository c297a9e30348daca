"""Products with the encoder's Jacobians J_i = ∂η_i/∂φ, by differentiating the encoder.

Shapes: B data, P coordinates of η, N vectors.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ..linalg import in_float64
from ..vmapping import plain_operations
from .rows import RowsJacobian

_BLOCK_ELEMENTS = 2**21


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def pull_back(encoder: nn.Module, x: Tensor, vectors: Float[Tensor, "B P"]) -> dict[str, Tensor]:
    """Σ_i J_iᵀ v_i by parameter: one vector-Jacobian product."""
    phi = trainable(encoder)
    eta = encoder(x)
    grads = torch.autograd.grad(
        eta, list(phi.values()), vectors.to(eta.dtype), allow_unused=True, materialize_grads=True
    )
    return {name: g.to_dense() if g.is_sparse else g for name, g in zip(phi, grads, strict=True)}


def pull_back_each(
    encoder: nn.Module, x: Tensor, vectors: Float[Tensor, "N B P"]
) -> Float64[Tensor, "N phi"]:
    """Σ_i J_iᵀ v_i for each of several v, the parameters one after the other."""
    phi = list(trainable(encoder).values())
    with plain_operations():  # a compiled module allows one backward pass
        eta = encoder(x)
    block = max(1, _BLOCK_ELEMENTS // sum(p.numel() for p in phi))

    def pull(v: Tensor, batched: bool) -> Tensor:
        grads = torch.autograd.grad(
            eta, phi, v, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
        rows = len(v) if batched else 1
        flat = [
            in_float64(p.new_zeros(rows, p.numel()) if g is None else g.to_dense().reshape(rows, -1))
            for g, p in zip(grads, phi, strict=True)
        ]
        return torch.cat(flat, 1)

    try:
        return torch.cat([pull(part, True) for part in vectors.split(block)])
    except Exception:  # an operation without a batching rule
        return torch.cat([pull(v, False) for v in vectors])


def push_forward(encoder: nn.Module, x: Tensor, direction: dict[str, Tensor]) -> Float[Tensor, "B P"]:
    """J_i v for every datum: the transpose of `pull_back`, by differentiating it."""
    phi = trainable(encoder)
    direction = {name: direction[name].to(p.dtype) for name, p in phi.items()}
    with plain_operations():
        eta = encoder(x)
        vectors = torch.zeros_like(eta, requires_grad=True)
        try:
            grads = torch.autograd.grad(
                eta, list(phi.values()), vectors, create_graph=True, allow_unused=True
            )
            reached = [(g * direction[n]).sum() for n, g in zip(phi, grads, strict=True) if g is not None]
            total = torch.stack(reached).sum() if reached else vectors.sum() * 0
            return torch.autograd.grad(total, vectors, materialize_grads=True, allow_unused=True)[0]
        except Exception:  # some operations have no second derivative
            return RowsJacobian(encoder, x, phi, eta.shape[-1]).push_forward(direction).to(eta.dtype)


def flat(gradient: dict[str, Tensor]) -> Float64[Tensor, " phi"]:
    """A gradient's parameters one after the other."""
    return torch.cat([in_float64(g).flatten() for g in gradient.values()])


def shaped(vector: Float[Tensor, " phi"], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """The transpose of `flat`: name -> tensor of its parameter's shape."""
    parts = vector.split([p.numel() for p in parameters.values()])
    return {n: v.view_as(p) for (n, p), v in zip(parameters.items(), parts, strict=True)}
