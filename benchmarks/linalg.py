"""Linear algebra on batches of small matrices, in float64 where sums are kept.

Shapes: B data, P coordinates of η, R replicates, N numbers a row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor


def in_float64(tensor: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Move a tensor to float64, where sums are kept."""
    return tensor.to(torch.float64)


def all_finite(*tensors: Tensor) -> bool:
    """Whether there is no NaN and no infinity in any."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def times(matrices: Float[Tensor, "B N P"], vectors: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
    """M_i v_i."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)


def square_root(matrices: Float[Tensor, "B P P"]) -> Float[Tensor, "B P P"]:
    """L with L Lᵀ = M for positive semi-definite M, which rounding may make slightly indefinite."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)


def square_trace(matrices: Float[Tensor, "B P P"]) -> Float[Tensor, " B"]:
    """tr M²."""
    return (matrices * matrices.mT).sum((-1, -2))


def trace_of_square(centred: Float[Tensor, "R N"]) -> Float[Tensor, ""]:
    """tr C², C the covariance of the rows of centred: products of two different rows are unbiased."""
    n = len(centred)
    squares = (centred @ centred.T).square()
    return (squares.sum() - squares.diagonal().sum()) / max(n * (n - 1), 1)
