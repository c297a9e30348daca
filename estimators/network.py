"""A log-likelihood as a network of linear layers, for estimators that look at how weights are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from .errors import UsageError
from .posteriors.shared import has_one_row, one_row

#: How a layer is applied: its name and inputs (S, *batch, in), or fewer that broadcast -> (S, *batch, out).
Apply = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    """A linear layer, a W + b, whose weights are latent.

    Attributes:
        inputs: numbers that go in.
        outputs: numbers that come out.
        bias: whether there is a b.
    """

    inputs: int
    outputs: int
    bias: bool = True

    @property
    def size(self) -> int:
        """How many weights it has."""
        return (self.inputs + self.bias) * self.outputs

    def matrix(self, part: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows in out"]:
        """W of the layer's own part of the weights, which come before b."""
        return part[..., : self.inputs * self.outputs].unflatten(-1, (self.inputs, self.outputs))

    def offset(self, part: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows out"] | None:
        """b of it, or None."""
        return part[..., self.inputs * self.outputs :] if self.bias else None


@dataclass(frozen=True)
class Network:
    """log p(x|w) of weights w, as a function of how its linear layers are applied.

    ``log_likelihood(apply)`` calls ``apply(name, inputs)`` once for each layer, and is a function of nothing
    else that is latent. Applied with the weights w themselves it is log p(x|w); an estimator may draw what
    comes out of the layers in its own way instead.

    Attributes:
        layers: by name, in the order in which their weights lie in w.
        log_likelihood: (apply) -> (S, *batch); or of a layered z (apply, **others), with the latents beside
            the weights by their names, each (S, *batch, *event).
        latent: of a layered z, which latent the weights are; None where they are all of z.
    """

    layers: Mapping[str, Linear]
    log_likelihood: Callable[..., Tensor]
    latent: str | None = None

    @property
    def size(self) -> int:
        """Numbers in w."""
        return sum(layer.size for layer in self.layers.values())

    def parts(self, w: Float[Tensor, "*rows D"]) -> dict[str, Tensor]:
        """What of w (..., D) belongs to each layer, by name."""
        parts = w.split([layer.size for layer in self.layers.values()], -1)
        return dict(zip(self.layers, parts, strict=True))

    def dense(self, w: Float[Tensor, "S *batch D"], **others: Tensor) -> Float[Tensor, "S *batch"]:
        """log p(x|w), (S, *batch), for w (S, *batch, D); one product a layer where the data share w.

        Raises:
            UsageError: a layer that there is not is applied, or one to inputs of another number.
        """
        together = has_one_row(w)
        parts = self.parts(one_row(w) if together else w)
        return self.log_likelihood(partial(self._apply, parts, together), **others)

    def _apply(self, parts: Mapping[str, Tensor], together: bool, name: str, inputs: Tensor) -> Tensor:
        layer = self.layers.get(name)
        if layer is None:
            raise UsageError(
                f"the network applies {name!r}, which is none of its layers {', '.join(self.layers)}"
            )
        if inputs.shape[-1] != layer.inputs:
            raise UsageError(
                f"layer {name!r} takes {layer.inputs} inputs, and is applied to a tensor of shape "
                f"{tuple(inputs.shape)}"
            )
        part = parts[name]
        return affine(inputs, layer.matrix(part), layer.offset(part), together)


def affine(
    inputs: Float[Tensor, "*#rows in"],
    matrix: Float[Tensor, "*#rows in out"],
    offset: Float[Tensor, "*#rows out"] | None,
    together: bool,
) -> Float[Tensor, "*rows out"]:
    """Inputs times matrix plus offset, (..., B, out).

    Args:
        inputs: (..., B, in).
        matrix: (..., B, in, out), one a datum; or (..., 1, in, out), one for all.
        offset: likewise.
        together: whether it is one for all data, so that their inputs make one product.
    """
    product = inputs @ matrix.squeeze(-3) if together else (inputs.unsqueeze(-2) @ matrix).squeeze(-2)
    return product if offset is None else product + offset
