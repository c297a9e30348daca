"""The gradient that one datum gives a parameter, kept in factors.

A weight applied at positions t gets Σ_t δ_t a_tᵀ, a_t the layer's input there and δ_t the gradient at its
output. The Gram matrix over the coordinates of η follows from the inner products of the δ and of the a,
without the gradient itself (Goodfellow, Efficient Per-Example Gradient Computations, 2015; for convolutions
Rochette et al., Efficient Per-Example Gradient Computations in Convolutional Neural Networks, 2019).

Shapes: b data, P coordinates of η, T positions, g groups, o outputs and i inputs a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ..linalg import in_float64

MAX_ELEMENTS = 2**23  # of the largest intermediate result


@runtime_checkable
class ParameterGradient(Protocol):
    """Rows of J_i, of one parameter, for a run of data."""

    def gram(self) -> Float64[Tensor, "b P P"]:
        """Rows times rows."""
        ...

    def mixed(self, root: Float[Tensor, "b P P"]) -> ParameterGradient:
        """Replace the rows J_i by L_iᵀ J_i."""
        ...

    def squares(self) -> Float64[Tensor, "*shape"]:
        """The sum of the squared rows, of the parameter's shape."""
        ...

    def total(self) -> Float[Tensor, "*shape"]:
        """The sum of the rows, of the parameter's shape."""
        ...

    def plus(self, other: ParameterGradient) -> ParameterGradient | None:
        """Add another use of the same parameter; None where the two are of different kinds."""
        ...


@dataclass(frozen=True)
class Dense:
    """The rows themselves, for parameters with few elements.

    Attributes:
        rows: J_i, flattened.
        shape: of the parameter.
    """

    rows: Float[Tensor, "b P numel"]
    shape: torch.Size

    def gram(self) -> Float64[Tensor, "b P P"]:
        rows = in_float64(self.rows)
        return rows @ rows.mT

    def mixed(self, root: Float[Tensor, "b P P"]) -> Dense:
        return replace(self, rows=root.mT.to(self.rows.dtype) @ self.rows)

    def squares(self) -> Float64[Tensor, "*shape"]:
        return in_float64(self.rows).square().sum((0, 1)).view(self.shape)

    def total(self) -> Float[Tensor, "*shape"]:
        return self.rows.sum((0, 1)).view(self.shape)

    def plus(self, other: ParameterGradient) -> Dense | None:
        return replace(self, rows=self.rows + other.rows) if isinstance(other, Dense) else None


@dataclass(frozen=True)
class Outer:
    """Σ_t δ_t a_tᵀ: linear layers and convolutions.

    Attributes:
        delta: δ.
        inputs: a.
        shape: of the weight, (g·o, ...), the rest having i elements.
    """

    delta: Float[Tensor, "b g P T o"]
    inputs: Float[Tensor, "b g T i"]
    shape: torch.Size

    def gram(self) -> Float64[Tensor, "b P P"]:
        _, _, coordinates, positions, outputs = self.delta.shape
        size = self.inputs.shape[-1]
        by_products = positions**2 * (size + coordinates * outputs) + coordinates**2 * positions * outputs
        by_rows = coordinates * outputs * size * (positions + coordinates)
        if by_rows < by_products:
            return torch.cat([_gram_of_rows(*part) for part in self._split(coordinates * size)])
        return torch.cat([_gram_of_products(*part) for part in self._split(positions**2)])

    def mixed(self, root: Float[Tensor, "b P P"]) -> Outer:
        return replace(self, delta=_mix(root, self.delta, 2))

    def squares(self) -> Float64[Tensor, "*shape"]:
        if self.delta.shape[3] == 1:
            squares = in_float64(self.delta).square().sum((2, 3)).transpose(0, 1)  # (g, b, o)
            inputs = in_float64(self.inputs).square().squeeze(2).transpose(0, 1)
            return (squares.mT @ inputs).reshape(self.shape)
        block = max(1, MAX_ELEMENTS // self.shape.numel())
        result = self.delta.new_zeros(self.shape, dtype=torch.float64)
        for delta, inputs in self._split(self.delta.shape[2] * self.shape.numel()):
            for some in delta.split(block, 2):
                rows = _rows(some, inputs)
                result += rows.square_().sum((0, 2)).reshape(self.shape)
        return result

    def total(self) -> Float[Tensor, "*shape"]:
        delta = self.delta.sum(2).transpose(0, 1).flatten(1, 2)  # (g, b·T, o)
        return (delta.mT @ self.inputs.transpose(0, 1).flatten(1, 2)).reshape(self.shape)

    def plus(self, other: ParameterGradient) -> Outer | None:
        """Further positions, of as many groups."""
        if not isinstance(other, Outer) or self.delta.shape[1] != other.delta.shape[1]:
            return None
        return replace(
            self,
            delta=torch.cat((self.delta, other.delta), 3),
            inputs=torch.cat((self.inputs, other.inputs), 2),
        )

    def _split(self, elements: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Runs of data of which each datum takes so many elements, (delta, inputs)."""
        size = max(1, MAX_ELEMENTS // elements)
        return zip(self.delta.split(size), self.inputs.split(size), strict=True)


def _rows(delta: Float[Tensor, "b g P T o"], inputs: Float[Tensor, "b g T i"]) -> Float[Tensor, "b g P o i"]:
    """Σ_t δ_t a_tᵀ."""
    sizes = delta.shape[2], delta.shape[4]
    return (delta.mT.flatten(2, 3) @ inputs).unflatten(2, sizes)


def _gram_of_rows(
    delta: Float[Tensor, "b g P T o"], inputs: Float[Tensor, "b g T i"]
) -> Float64[Tensor, "b P P"]:
    data, groups, coordinates = delta.shape[:3]
    gram = delta.new_zeros(data, coordinates, coordinates, dtype=torch.float64)
    block = max(1, MAX_ELEMENTS // (data * groups * coordinates * inputs.shape[-1]))
    for some in delta.split(block, -1):
        rows = in_float64(_rows(some, inputs).flatten(3))
        gram += (rows @ rows.mT).sum(1)
    return gram


def _gram_of_products(
    delta: Float[Tensor, "b g P T o"], inputs: Float[Tensor, "b g T i"]
) -> Float64[Tensor, "b P P"]:
    near = inputs @ inputs.mT  # (b, g, T, T)
    weighted = in_float64((near.unsqueeze(2) @ delta).flatten(3))
    gram = (weighted @ in_float64(delta.flatten(3)).mT).sum(1)
    return (gram + gram.mT) / 2  # symmetric but for rounding


@dataclass(frozen=True)
class Lookup:
    """Σ_t e_{k(t)} δ_tᵀ: rows of a table, looked up by index.

    Attributes:
        delta: δ.
        index: k(t).
        shape: of the table, (entries, o).
    """

    delta: Float[Tensor, "b P T o"]
    index: Int[Tensor, "b T"]
    shape: torch.Size

    def gram(self) -> Float64[Tensor, "b P P"]:
        same = (self.index.unsqueeze(-1) == self.index.unsqueeze(-2)).to(torch.float64)
        delta = in_float64(self.delta)
        return (same.unsqueeze(1) @ delta).flatten(2) @ delta.flatten(2).mT

    def mixed(self, root: Float[Tensor, "b P P"]) -> Lookup:
        return replace(self, delta=_mix(root, self.delta, 1))

    def squares(self) -> Float64[Tensor, "*shape"]:
        result = self.delta.new_zeros(self.shape, dtype=torch.float64)
        for delta, index in zip(in_float64(self.delta), self.index, strict=True):
            entries, place = index.unique(return_inverse=True)
            rows = delta.new_zeros(len(delta), len(entries), self.shape[1])
            result[entries] += rows.index_add_(1, place, delta).square_().sum(0)
        return result

    def total(self) -> Float[Tensor, "*shape"]:
        result = self.delta.new_zeros(self.shape)
        return result.index_add_(0, self.index.flatten(), self.delta.sum(1).flatten(0, 1))

    def plus(self, other: ParameterGradient) -> Lookup | None:
        """Further positions."""
        if not isinstance(other, Lookup):
            return None
        return replace(
            self,
            delta=torch.cat((self.delta, other.delta), 2),
            index=torch.cat((self.index, other.index), 1),
        )


def _mix(
    root: Float[Tensor, "b P P"], delta: Float[Tensor, "b *rest"], dimension: int
) -> Float[Tensor, "b *rest"]:
    """L_iᵀ along dimension ``dimension`` of delta, which has size P."""
    moved = delta.movedim(dimension, 1)
    flat = root.mT.to(delta.dtype) @ moved.flatten(2)
    return flat.view(moved.shape).movedim(1, dimension)
