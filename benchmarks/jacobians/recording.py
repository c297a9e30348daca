"""One pass of an encoder that notes what each known layer was given, and what its output is worth to η."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .factors import ParameterGradient
from .layers import RULES


@dataclass
class Call:
    """One use of a layer.

    Attributes:
        layer: the module.
        inputs: detached; N is a multiple of the number of data.
        tap: zero, added to the output: the gradient with respect to it is δ. Unlike the output itself, it
            stays what it is when the next module works in place.
    """

    layer: nn.Module
    inputs: Shaped[Tensor, "N *inputs"]
    tap: Float[Tensor, "N *outputs"]


@dataclass
class Recording:
    """A pass of b data.

    Attributes:
        eta: attached.
        calls: in the order they were made.
    """

    eta: Float[Tensor, "b P"]
    calls: list[Call] = field(default_factory=list)

    def elements(self) -> int:
        """Numbers that `gradients` holds: δ for every coordinate, and inputs by position."""
        outputs = sum(call.tap.numel() for call in self.calls)
        return self.eta.shape[-1] * outputs + sum(_patch_elements(call) for call in self.calls)

    def deltas(self, vectors: Iterable[Float[Tensor, "b P"]]) -> list[Float[Tensor, "V ..."]]:
        """Gradients of Σ v·η at the outputs of the calls, each (V, N, ...), for V vectors."""
        taps = [call.tap for call in self.calls]
        if not taps:
            return []
        rows = [
            torch.autograd.grad(
                self.eta, taps, v, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for v in vectors
        ]
        return [torch.stack(row) for row in zip(*rows, strict=True)]

    def columns(self) -> Iterable[Float[Tensor, "b P"]]:
        """Vectors that pick one coordinate of η of every datum."""
        for k in range(self.eta.shape[-1]):
            vector = torch.zeros_like(self.eta)
            vector[:, k] = 1
            yield vector

    def gradients(
        self, names: dict[int, str], deltas: list[Float[Tensor, "V ..."]]
    ) -> dict[str, ParameterGradient | None]:
        """Parameter name -> its gradient in factors, or None where the layer's rule does not apply.

        Args:
            names: id of a parameter -> its name, of those that are asked for.
            deltas: of each call, (V, N, ...), as `deltas` returns.
        """
        data = len(self.eta)
        result: dict[str, ParameterGradient | None] = {}
        for call, delta in zip(self.calls, deltas, strict=True):
            parts = _apply_rule(call, delta, data)
            for kind, parameter in call.layer.named_parameters(recurse=False):
                name = names.get(id(parameter))
                if name is None:
                    continue
                part = parts.get(kind)
                before = result.get(name)
                known = part is not None and (name not in result or before is not None)
                result[name] = (before.plus(part) if before and part else part) if known else None
        return result


def record(encoder: nn.Module, x: Tensor, layers: Iterable[nn.Module]) -> Recording:
    """Pass x through the encoder, tapping each call of ``layers``."""
    calls: list[Call] = []
    handles = [
        layer.register_forward_hook(partial(_tap, calls, len(x)), with_kwargs=True) for layer in layers
    ]
    try:
        with torch.enable_grad():
            eta = encoder(x)
    finally:
        for handle in handles:
            handle.remove()
    return Recording(eta, calls)


def known_layers(encoder: nn.Module) -> list[nn.Module]:
    """Layers with a rule and a trainable parameter of their own."""
    return [
        module
        for module in encoder.modules()
        if type(module) in RULES
        and getattr(module, "running_mean", module) is not None
        and any(p.requires_grad for p in module.parameters(recurse=False))
    ]


def _tap(
    calls: list[Call], data: int, layer: nn.Module, args: tuple[object, ...], kwargs: object, output: object
) -> Tensor | None:
    inputs = args[0] if len(args) == 1 and not kwargs else None
    if not (isinstance(inputs, Tensor) and isinstance(output, Tensor)):
        return None
    if (
        inputs.dim() < 2 - (not inputs.is_floating_point())
        or len(inputs) % data
        or len(inputs) != len(output)
    ):
        return None
    tap = output.new_zeros((), requires_grad=True).expand_as(output)
    calls.append(Call(layer, inputs.detach(), tap))
    return output + tap


def _apply_rule(call: Call, delta: Tensor, data: int) -> dict[str, ParameterGradient]:
    """Sort calls by datum: inputs (b, n, ...), delta (b, V, n, ...)."""
    inputs = call.inputs.unflatten(0, (data, -1))
    delta = delta.unflatten(1, (data, -1)).transpose(0, 1)
    try:
        return RULES[type(call.layer)](call.layer, inputs, delta)
    except (RuntimeError, ValueError, IndexError):  # inputs without a batch dimension
        return {}


def _patch_elements(call: Call) -> int:
    """Numbers in a convolution's inputs by position; a layer that sees each input once holds no more."""
    weight = getattr(call.layer, "weight", None)
    if not isinstance(call.layer, nn.modules.conv._ConvNd) or not isinstance(weight, Tensor):
        return call.inputs.numel()
    return call.tap.numel() // len(weight) * weight[0].numel() * call.layer.groups
