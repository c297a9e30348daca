"""What the parameters of a known layer get, from its inputs and the gradients at its outputs.

Shapes: b data, n calls a datum, P coordinates of η, T positions, C channels, g groups, i inputs a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from .factors import Dense, Lookup, Outer, ParameterGradient

Inputs: TypeAlias = Float[Tensor, "b n *inputs"]
Delta: TypeAlias = Float[Tensor, "b P n *outputs"]
Gradients: TypeAlias = dict[str, ParameterGradient]


def _linear(layer: nn.Linear, inputs: Inputs, delta: Delta) -> Gradients:
    inputs, delta = inputs.flatten(1, -2), delta.flatten(2, -2)  # (b, T, i), (b, P, T, o)
    weight = Outer(delta.unsqueeze(1), inputs.unsqueeze(1), layer.weight.shape)
    return {"weight": weight, "bias": Dense(delta.sum(2), torch.Size((layer.out_features,)))}


def _convolution(layer: nn.modules.conv._ConvNd, inputs: Inputs, delta: Delta) -> Gradients:
    data, several = inputs.shape[:2]
    patches = _patches(layer, inputs.flatten(0, 1))  # (b·n, g, T, i)
    patches = patches.unflatten(0, (data, several)).transpose(1, 2).flatten(2, 3)
    delta = delta.flatten(4).unflatten(3, (layer.groups, -1))  # (b, P, n, g, o, T)
    grouped = delta.permute(0, 3, 1, 2, 5, 4).flatten(3, 4)
    weight = Outer(grouped, patches, layer.weight.shape)
    bias = delta.sum((2, -1)).flatten(2)
    return {"weight": weight, "bias": Dense(bias, torch.Size((layer.out_channels,)))}


def _patches(
    layer: nn.modules.conv._ConvNd, inputs: Float[Tensor, "N C *position"]
) -> Float[Tensor, "N g T i"]:
    """What each position of the output sees of the inputs."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    spatial = len(layer.kernel_size)
    for k in range(spatial):
        size, step = layer.kernel_size[k], layer.dilation[k]
        inputs = inputs.unfold(2 + k, (size - 1) * step + 1, layer.stride[k])[..., ::step]
    inputs = inputs.unflatten(1, (layer.groups, -1))  # (N, g, i/k, *out, *k)
    order = [0, 1, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial)]
    return inputs.permute(order).flatten(2 + spatial).flatten(2, 1 + spatial)


def _layer_norm(layer: nn.LayerNorm, inputs: Inputs, delta: Delta) -> Gradients:
    shape = torch.Size(layer.normalized_shape)
    normal = functional.layer_norm(inputs, list(shape), eps=layer.eps)
    return _scale_and_shift(normal.flatten(-len(shape)).flatten(1, -2), delta, shape)


def _group_norm(layer: nn.GroupNorm, inputs: Inputs, delta: Delta) -> Gradients:
    normal = functional.group_norm(inputs.flatten(0, 1), layer.num_groups, eps=layer.eps)
    return _by_channel(normal.view_as(inputs), delta, layer.num_channels)


def _batch_norm(layer: nn.modules.batchnorm._BatchNorm, inputs: Inputs, delta: Delta) -> Gradients:
    mean, variance = layer.running_mean, layer.running_var
    normal = functional.batch_norm(inputs.flatten(0, 1), mean, variance, eps=layer.eps)
    return _by_channel(normal.view_as(inputs), delta, layer.num_features)


def _by_channel(normal: Inputs, delta: Delta, channels: int) -> Gradients:
    """Channels are dimension 2 of the inputs."""
    last = normal.unsqueeze(-1).flatten(3).transpose(2, 3).flatten(1, 2)
    return _scale_and_shift(last, delta.unsqueeze(-1).flatten(4).transpose(3, 4), torch.Size((channels,)))


def _scale_and_shift(
    normal: Float[Tensor, "b T C"], delta: Float[Tensor, "b P *outputs"], shape: torch.Size
) -> Gradients:
    delta = delta.reshape(*delta.shape[:2], -1, shape.numel())
    scale = torch.einsum("bptc,btc->bpc", delta, normal)
    return {"weight": Dense(scale, shape), "bias": Dense(delta.sum(2), shape)}


def _embedding(layer: nn.Embedding, inputs: Shaped[Tensor, "b n *inputs"], delta: Delta) -> Gradients:
    index = inputs.flatten(1).long()
    delta = delta.flatten(2, -2)
    if layer.padding_idx is not None:
        delta = delta * (index != layer.padding_idx)[:, None, :, None]
    return {"weight": Lookup(delta, index, layer.weight.shape)}


#: Layer -> what its parameters get, from inputs (b, n, ...) and delta (b, P, n, ...), n calls a datum.
RULES: dict[type[nn.Module], Callable[..., Gradients]] = {
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
