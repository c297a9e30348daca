"""The gradient that one datum gives a layer's parameter, kept in factors.

A weight applied at positions t gets Σ_t δ_t a_tᵀ, a_t the layer's input there and δ_t the gradient at its
output. The Gram matrix over the coordinates of η follows from the inner products of the δ and of the a,
without the gradient itself (Goodfellow, Efficient Per-Example Gradient Computations, 2015; for convolutions
Rochette et al., Efficient Per-Example Gradient Computations in Convolutional Neural Networks, 2019).

Shapes: b data, P coordinates of η, T positions, g groups, o outputs and i inputs a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..linalg import in_float64

MAX_ELEMENTS = 2**23  # of the largest intermediate result


class ParameterGradient(Protocol):
    """Rows of J_i, of one parameter, for a run of data."""

    def gram(self) -> Tensor:
        """Rows times rows, (b, P, P), float64."""
        ...

    def mixed(self, root: Tensor) -> ParameterGradient:
        """Replace the rows J_i by L_iᵀ J_i, for L (b, P, P)."""
        ...

    def squares(self) -> Tensor:
        """The sum of the squared rows, of the parameter's shape, float64."""
        ...

    def total(self) -> Tensor:
        """The sum of the rows, of the parameter's shape."""
        ...


@dataclass(frozen=True)
class Dense:
    """The rows themselves, for parameters with few elements.

    Attributes:
        rows: (b, P, numel).
        shape: of the parameter.
    """

    rows: Tensor
    shape: torch.Size

    def gram(self) -> Tensor:
        rows = in_float64(self.rows)
        return rows @ rows.mT

    def mixed(self, root: Tensor) -> Dense:
        return replace(self, rows=root.mT.to(self.rows.dtype) @ self.rows)

    def squares(self) -> Tensor:
        return in_float64(self.rows).square().sum((0, 1)).view(self.shape)

    def total(self) -> Tensor:
        return self.rows.sum((0, 1)).view(self.shape)

    def plus(self, other: Dense) -> Dense:
        """Add another use of the same parameter."""
        return replace(self, rows=self.rows + other.rows)


@dataclass(frozen=True)
class Outer:
    """Σ_t δ_t a_tᵀ: linear layers and convolutions.

    Attributes:
        delta: (b, g, P, T, o).
        inputs: (b, g, T, i).
        shape: of the weight, (g·o, ...), the rest having i elements.
    """

    delta: Tensor
    inputs: Tensor
    shape: torch.Size

    def gram(self) -> Tensor:
        _, _, coordinates, positions, outputs = self.delta.shape
        size = self.inputs.shape[-1]
        by_products = positions**2 * (size + coordinates * outputs) + coordinates**2 * positions * outputs
        by_rows = coordinates * outputs * size * (positions + coordinates)
        if by_rows < by_products:
            return torch.cat([_gram_of_rows(*part) for part in self._split(coordinates * size)])
        return torch.cat([_gram_of_products(*part) for part in self._split(positions**2)])

    def mixed(self, root: Tensor) -> Outer:
        return replace(self, delta=_mix(root, self.delta, 2))

    def squares(self) -> Tensor:
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

    def total(self) -> Tensor:
        delta = self.delta.sum(2).transpose(0, 1).flatten(1, 2)  # (g, b·T, o)
        return (delta.mT @ self.inputs.transpose(0, 1).flatten(1, 2)).reshape(self.shape)

    def plus(self, other: Outer) -> Outer:
        """Add another use of the same parameter: more positions."""
        return replace(
            self,
            delta=torch.cat((self.delta, other.delta), 3),
            inputs=torch.cat((self.inputs, other.inputs), 2),
        )

    def _split(self, elements: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Runs of data of which each datum takes so many elements, (delta, inputs)."""
        size = max(1, MAX_ELEMENTS // elements)
        return zip(self.delta.split(size), self.inputs.split(size), strict=True)


def _rows(delta: Tensor, inputs: Tensor) -> Tensor:
    """Σ_t δ_t a_tᵀ, (b, g, P, o, i)."""
    sizes = delta.shape[2], delta.shape[4]
    return (delta.mT.flatten(2, 3) @ inputs).unflatten(2, sizes)


def _gram_of_rows(delta: Tensor, inputs: Tensor) -> Tensor:
    data, groups, coordinates = delta.shape[:3]
    gram = delta.new_zeros(data, coordinates, coordinates, dtype=torch.float64)
    block = max(1, MAX_ELEMENTS // (data * groups * coordinates * inputs.shape[-1]))
    for some in delta.split(block, -1):
        rows = in_float64(_rows(some, inputs).flatten(3))
        gram += (rows @ rows.mT).sum(1)
    return gram


def _gram_of_products(delta: Tensor, inputs: Tensor) -> Tensor:
    near = inputs @ inputs.mT  # (b, g, T, T)
    weighted = in_float64((near.unsqueeze(2) @ delta).flatten(3))
    gram = (weighted @ in_float64(delta.flatten(3)).mT).sum(1)
    return (gram + gram.mT) / 2  # symmetric but for rounding


@dataclass(frozen=True)
class Lookup:
    """Σ_t e_{k(t)} δ_tᵀ: rows of a table, looked up by index.

    Attributes:
        delta: (b, P, T, o).
        index: (b, T), k(t).
        shape: of the table, (entries, o).
    """

    delta: Tensor
    index: Tensor
    shape: torch.Size

    def gram(self) -> Tensor:
        same = (self.index.unsqueeze(-1) == self.index.unsqueeze(-2)).to(torch.float64)
        delta = in_float64(self.delta)
        return (same.unsqueeze(1) @ delta).flatten(2) @ delta.flatten(2).mT

    def mixed(self, root: Tensor) -> Lookup:
        return replace(self, delta=_mix(root, self.delta, 1))

    def squares(self) -> Tensor:
        result = self.delta.new_zeros(self.shape, dtype=torch.float64)
        for delta, index in zip(in_float64(self.delta), self.index, strict=True):
            entries, place = index.unique(return_inverse=True)
            rows = delta.new_zeros(len(delta), len(entries), self.shape[1])
            result[entries] += rows.index_add_(1, place, delta).square_().sum(0)
        return result

    def total(self) -> Tensor:
        result = self.delta.new_zeros(self.shape)
        return result.index_add_(0, self.index.flatten(), self.delta.sum(1).flatten(0, 1))

    def plus(self, other: Lookup) -> Lookup:
        """Add another use of the same table."""
        return replace(
            self,
            delta=torch.cat((self.delta, other.delta), 2),
            index=torch.cat((self.index, other.index), 1),
        )


def _mix(root: Tensor, delta: Tensor, dimension: int) -> Tensor:
    """L_iᵀ along dimension ``dimension`` of delta (b, ...), which has size P."""
    moved = delta.movedim(dimension, 1)
    flat = root.mT.to(delta.dtype) @ moved.flatten(2)
    return flat.view(moved.shape).movedim(1, dimension)


AnyGradient = Dense | Outer | Lookup
G = TypeVar("G", Dense, Outer, Lookup)


def add(first: AnyGradient, second: AnyGradient) -> AnyGradient | None:
    """Two uses of one parameter together, or None when they are of different kinds."""
    if isinstance(first, Dense) and isinstance(second, Dense):
        return first.plus(second)
    if isinstance(first, Lookup) and isinstance(second, Lookup):
        return first.plus(second)
    if (
        isinstance(first, Outer)
        and isinstance(second, Outer)
        and first.delta.shape[1] == second.delta.shape[1]
    ):
        return first.plus(second)
    return None


def _linear(layer: nn.Linear, inputs: Tensor, delta: Tensor) -> dict[str, AnyGradient]:
    inputs, delta = inputs.flatten(1, -2), delta.flatten(2, -2)  # (b, T, i), (b, P, T, o)
    weight = Outer(delta.unsqueeze(1), inputs.unsqueeze(1), layer.weight.shape)
    return {"weight": weight, "bias": Dense(delta.sum(2), torch.Size((layer.out_features,)))}


def _convolution(layer: nn.modules.conv._ConvNd, inputs: Tensor, delta: Tensor) -> dict[str, AnyGradient]:
    data, several = inputs.shape[:2]
    patches = _patches(layer, inputs.flatten(0, 1))  # (b·n, g, T, i)
    patches = patches.unflatten(0, (data, several)).transpose(1, 2).flatten(2, 3)
    delta = delta.flatten(4).unflatten(3, (layer.groups, -1))  # (b, P, n, g, o, T)
    grouped = delta.permute(0, 3, 1, 2, 5, 4).flatten(3, 4)
    weight = Outer(grouped, patches, layer.weight.shape)
    bias = delta.sum((2, -1)).flatten(2)
    return {"weight": weight, "bias": Dense(bias, torch.Size((layer.out_channels,)))}


def _patches(layer: nn.modules.conv._ConvNd, inputs: Tensor) -> Tensor:
    """What each position of the output sees of inputs (N, C, ...): (N, g, T, i)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    spatial = len(layer.kernel_size)
    for k in range(spatial):
        size, step = layer.kernel_size[k], layer.dilation[k]
        inputs = inputs.unfold(2 + k, (size - 1) * step + 1, layer.stride[k])[..., ::step]
    inputs = inputs.unflatten(1, (layer.groups, -1))  # (N, g, i/k, *out, *k)
    order = [0, 1, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial)]
    return inputs.permute(order).flatten(2 + spatial).flatten(2, 1 + spatial)


def _layer_norm(layer: nn.LayerNorm, inputs: Tensor, delta: Tensor) -> dict[str, AnyGradient]:
    shape = torch.Size(layer.normalized_shape)
    normal = functional.layer_norm(inputs, list(shape), eps=layer.eps)
    return _scale_and_shift(normal.flatten(-len(shape)).flatten(1, -2), delta, shape)


def _group_norm(layer: nn.GroupNorm, inputs: Tensor, delta: Tensor) -> dict[str, AnyGradient]:
    normal = functional.group_norm(inputs.flatten(0, 1), layer.num_groups, eps=layer.eps)
    return _by_channel(normal.view_as(inputs), delta, layer.num_channels)


def _batch_norm(
    layer: nn.modules.batchnorm._BatchNorm, inputs: Tensor, delta: Tensor
) -> dict[str, AnyGradient]:
    mean, variance = layer.running_mean, layer.running_var
    normal = functional.batch_norm(inputs.flatten(0, 1), mean, variance, eps=layer.eps)
    return _by_channel(normal.view_as(inputs), delta, layer.num_features)


def _by_channel(normal: Tensor, delta: Tensor, channels: int) -> dict[str, AnyGradient]:
    """Channels are dimension 2 of inputs (b, n, C, ...)."""
    last = normal.unsqueeze(-1).flatten(3).transpose(2, 3).flatten(1, 2)
    return _scale_and_shift(last, delta.unsqueeze(-1).flatten(4).transpose(3, 4), torch.Size((channels,)))


def _scale_and_shift(normal: Tensor, delta: Tensor, shape: torch.Size) -> dict[str, AnyGradient]:
    """normal (b, T, C), delta (b, P, ..., C)."""
    delta = delta.reshape(*delta.shape[:2], -1, shape.numel())
    scale = torch.einsum("bptc,btc->bpc", delta, normal)
    return {"weight": Dense(scale, shape), "bias": Dense(delta.sum(2), shape)}


def _embedding(layer: nn.Embedding, inputs: Tensor, delta: Tensor) -> dict[str, AnyGradient]:
    index = inputs.flatten(1).long()
    delta = delta.flatten(2, -2)
    if layer.padding_idx is not None:
        delta = delta * (index != layer.padding_idx)[:, None, :, None]
    return {"weight": Lookup(delta, index, layer.weight.shape)}


#: Layer -> what its parameters get, from inputs (b, n, ...) and delta (b, P, n, ...), n calls a datum.
RULES: dict[type[nn.Module], Callable[..., dict[str, AnyGradient]]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.Embedding: _embedding,
}
