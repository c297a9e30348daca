"""Several latents, some drawn given others: a hierarchy as one distribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..errors import UsageError
from . import distributions

#: Of named latents (S, *batch, *event) the distribution of another, batch shape (S, *batch).
Conditional = Callable[..., Distribution]


class Layered(Distribution):
    """z = (z¹, z², …), named latents, each drawn given others that its function takes as arguments.

    ``Layered({"z1": q1, "z2": lambda z1: Independent(Normal(*net(z1)), 1)})`` is q(z¹) q(z²|z¹), and
    ``Layered({"z1": lambda z2: …, "z2": p2})`` is p(z¹|z²) p(z²): the order of the names is that of the
    event, so that posterior and prior speak of the same z, and the functions' arguments say who is drawn
    first. The event is one vector, the latents' events flattened and joined: see `split` and `join`.

    Args:
        layers: by name, a distribution of batch shape (*batch), or a function of other latents, by their
            names, each (S, *batch, *event), that gives one of batch shape (S, *batch).

    Raises:
        UsageError: there is no layer, an argument names no latent, or the latents depend on each other in a
            circle.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, layers: Mapping[str, Distribution | Conditional]) -> None:
        self.layers = dict(layers)
        self.parents = {name: _arguments(layer) for name, layer in self.layers.items()}
        self.order = _topological(self.parents)
        roots = [layer for layer in self.layers.values() if isinstance(layer, Distribution)]
        batch = torch.broadcast_shapes(*(layer.batch_shape for layer in roots))
        super().__init__(batch, validate_args=False)

    @cached_property
    def event_shapes(self) -> dict[str, torch.Size]:
        """The event of each latent, by name; of conditional ones, that at parents of zero."""
        shapes: dict[str, torch.Size] = {}
        parts: dict[str, Tensor] = {}
        with torch.no_grad():
            for name in self.order:
                layer = self._given(name, parts)
                shapes[name] = layer.event_shape
                parts[name] = distributions.draw(layer, 1).squeeze(0) * 0
        return shapes

    @property
    def event_shape(self) -> torch.Size:
        """One vector."""
        return torch.Size((sum(self.sizes.values()),))

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of each latent in the event, by name, in the event's order."""
        return {name: self.event_shapes[name].numel() for name in self.layers}

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The latents (..., *event) of z (..., D), by name."""
        parts = z.split(list(self.sizes.values()), -1)
        return {
            name: part.reshape(*z.shape[:-1], *self.event_shapes[name])
            for name, part in zip(self.layers, parts, strict=True)
        }

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """z (..., D) of the latents (..., *event), by name."""
        flat = [
            parts[name].flatten(parts[name].dim() - len(self.event_shapes[name]))
            if self.event_shapes[name]
            else parts[name].unsqueeze(-1)
            for name in self.layers
        ]
        return torch.cat(flat, -1)

    def given(self, parts: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """The distribution of each latent given those it depends on, by name, in the order of drawing."""
        return {name: self._given(name, parts) for name in self.order}

    def log_probs(self, z: Tensor) -> dict[str, Tensor]:
        """log of each factor, (...), by name, for z (..., D)."""
        parts = self.split(z)
        return {name: layer.log_prob(parts[name]) for name, layer in self.given(parts).items()}

    def log_prob(self, value: Tensor) -> Tensor:
        """log of z (..., D), (...)."""
        return torch.stack(list(self.log_probs(value).values())).sum(0)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """z (*sample_shape, *batch, D), from ancestor to descendant."""
        with torch.no_grad():
            return self._draw(sample_shape, lambda layer, shape: layer.sample(shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The same, differentiable in all that the factors are made of."""
        return self._draw(sample_shape, lambda layer, shape: layer.rsample(shape))

    def _draw(self, sample_shape: Sequence[int], one: Callable[[Distribution, torch.Size], Tensor]) -> Tensor:
        rows = torch.Size((*sample_shape, *self.batch_shape))
        parts: dict[str, Tensor] = {}
        for name in self.order:
            layer = self._given(name, parts)
            parts[name] = one(layer, rows[: len(rows) - len(layer.batch_shape)])
        return self.join(parts)

    def _given(self, name: str, parts: Mapping[str, Tensor]) -> Distribution:
        layer = self.layers[name]
        if isinstance(layer, Distribution):
            return layer
        return layer(*(parts[parent] for parent in self.parents[name]))


def _arguments(layer: Distribution | Conditional) -> tuple[str, ...]:
    return () if isinstance(layer, Distribution) else tuple(inspect.signature(layer).parameters)


def _topological(parents: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Ancestors before descendants, else in the order of the names."""
    if not parents:
        raise UsageError("Layered needs a latent at least")
    for name, needed in parents.items():
        unknown = [parent for parent in needed if parent not in parents]
        if unknown:
            raise UsageError(
                f"the distribution of {name} takes {unknown[0]}, which is none of the latents "
                f"{', '.join(parents)}"
            )
    done: list[str] = []
    while len(done) < len(parents):
        ready = [n for n, needed in parents.items() if n not in done and all(p in done for p in needed)]
        if not ready:
            raise UsageError(
                f"the latents {', '.join(n for n in parents if n not in done)} depend on each other"
            )
        done.append(ready[0])
    return tuple(done)
