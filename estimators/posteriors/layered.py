"""Several latents, some drawn given others: a hierarchy as one distribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution, constraints

from ..errors import UsageError
from .supports import Combinations, supports_of_one

#: Of named latents (S, *batch, *event) the distribution of another, batch shape (S, *batch).
Conditional = Callable[..., Distribution]

#: How one latent is drawn: its name, its distribution, and the shape of samples to draw, (S,) or ().
DrawOne = Callable[[str, Distribution, torch.Size], Tensor]


class Layered(Distribution):
    """z = (z¹, z², …), named latents, each drawn given others that its function takes as arguments.

    ``Layered({"z1": q1, "z2": lambda z1: Independent(Normal(*net(z1)), 1)})`` is q(z¹) q(z²|z¹), and
    ``Layered({"z1": lambda z2: …, "z2": p2})`` is p(z¹|z²) p(z²): the order of the names is that of the
    event, so that posterior and prior speak of the same z, and the functions' arguments say who is drawn
    first. Arguments with a default are the function's own. The event is one vector, the latents' events
    flattened and joined: see `split`, `join` and `reading`.

    Args:
        layers: by name, a distribution of batch shape (*batch), or a function of other latents, by their
            names, each (S, *batch, *event), that gives one of batch shape (S, *batch).

    Attributes:
        layers: as given.
        parents: the latents that each one is given, by name.
        order: of drawing, ancestors first.

    Raises:
        UsageError: there is no layer, one is neither distribution nor function, an argument names no latent,
            or the latents depend on each other in a circle.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, layers: Mapping[str, Distribution | Conditional]) -> None:
        self.layers = dict(layers)
        self.parents = {name: _arguments(name, layer) for name, layer in self.layers.items()}
        self.order = _topological(self.parents)
        roots = {name: layer for name, layer in self.layers.items() if isinstance(layer, Distribution)}
        try:
            batch = torch.broadcast_shapes(*(layer.batch_shape for layer in roots.values()))
        except RuntimeError:
            each = ", ".join(f"{name} has {tuple(layer.batch_shape)}" for name, layer in roots.items())
            raise UsageError(
                f"the latents' batch shapes differ: {each}; Independent(…, 1) makes the last dimension part "
                f"of the event"
            ) from None
        self._profiles: dict[str, tuple[torch.Size, torch.dtype | None]] = {}
        super().__init__(batch, validate_args=False)

    @cached_property
    def examples(self) -> dict[str, Distribution]:
        """The distribution of each latent at parents of zero, by name, in the order of drawing."""
        parts: dict[str, Tensor] = {}
        found: dict[str, Distribution] = {}
        with torch.no_grad():
            for name in self.order:
                found[name] = layer = self.one_given(name, parts, self.batch_shape)
                self._note(name, layer)
                parts[name] = _zeros(layer, self.batch_shape[-1:])
        return found

    @property
    def event_shapes(self) -> dict[str, torch.Size]:
        """The event of each latent, by name."""
        return {name: shape for name, (shape, _) in self._known().items()}

    @property
    def event_shape(self) -> torch.Size:
        """One vector."""
        return torch.Size((sum(self.sizes.values()),))

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of each latent in the event, by name, in the event's order."""
        return {name: shape.numel() for name, shape in self.event_shapes.items()}

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether every latent has."""
        return all(layer.has_rsample for layer in self.examples.values())

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether every latent has finitely many values, whatever the others are."""
        return self.supports() is not None

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every z, (outcomes, *batch, D); ones in place of the batch without ``expand``."""
        supports = self.supports()
        if supports is None:
            raise NotImplementedError("a latent has no finite support")
        every = Combinations(supports, len(self.batch_shape), self.event_shape)
        z = every.between(0, len(every))
        return z.expand(-1, *self.batch_shape, -1) if expand else z

    def supports(self) -> list[Tensor] | None:
        """What each variable of each latent can be, in the event's order; None where that is endless."""
        found: list[Tensor] = []
        for name in self.layers:
            layer = self.examples[name]
            base = layer
            while isinstance(base, td.Independent):
                base = base.base_dist
            # How many values a Binomial takes could depend on other latents.
            varies = isinstance(base, td.Binomial) and self.parents[name]
            supports = None if varies else supports_of_one(layer)
            if supports is None:
                return None
            found += supports
        return found

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The latents (..., *event) of z (..., D), by name."""
        known = self._known()
        size = sum(shape.numel() for shape, _ in known.values())
        if not z.dim() or z.shape[-1] != size:
            each = ", ".join(f"{name} {shape.numel()}" for name, (shape, _) in known.items())
            raise UsageError(f"z has shape {tuple(z.shape)}, expected (..., {size}): {each}")
        parts = z.split([shape.numel() for shape, _ in known.values()], -1)
        return {
            name: part.reshape((*z.shape[:-1], *shape)).to(dtype or part.dtype)
            for (name, (shape, dtype)), part in zip(known.items(), parts, strict=True)
        }

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """z (..., D) of the latents (..., *event), by name."""
        known = self._known()
        rows = {name: parts[name].dim() - len(shape) for name, (shape, _) in known.items()}
        return torch.cat([parts[name].reshape((*parts[name].shape[:n], -1)) for name, n in rows.items()], -1)

    def given(self, parts: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """The distribution of each latent given those it depends on, by name, in the order of drawing."""
        return {name: self.one_given(name, parts) for name in self.order}

    def log_probs(self, z: Tensor) -> dict[str, Tensor]:
        """log of each factor, (...), by name, in the order of drawing, for z (..., D)."""
        return self.each(z, lambda name, layer, part: layer.log_prob(part))

    def each(self, z: Tensor, function: Callable[[str, Distribution, Tensor], Tensor]) -> dict[str, Tensor]:
        """What a function makes of each latent, (...), by name: of its name, its distribution and itself."""
        parts, rows = self.split(z), torch.broadcast_shapes(z.shape[:-1], self.batch_shape)
        return {
            name: function(name, self.one_given(name, parts, rows), parts[name]).expand(rows)
            for name in self.order
        }

    def log_prob(self, value: Tensor) -> Tensor:
        """log of z (..., D), (...)."""
        return total(self.log_probs(value))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """z (*sample_shape, *batch, D), from ancestor to descendant."""
        with torch.no_grad():
            return self.ancestral(sample_shape, lambda name, layer, shape: layer.sample(shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The same, differentiable in all that the factors are made of."""
        return self.ancestral(sample_shape, lambda name, layer, shape: layer.rsample(shape))

    def ancestral(self, sample_shape: Sequence[int], one: DrawOne) -> Tensor:
        """z (*sample_shape, *batch, D), each latent drawn by ``one`` given those before it."""
        shape = torch.Size(sample_shape)
        rows = shape + self.batch_shape
        parts: dict[str, Tensor] = {}
        for name in self.order:
            layer = self.one_given(name, parts, rows)
            self._note(name, layer)
            if self.parents[name]:
                parts[name] = one(name, _expanded(layer, rows), torch.Size())
            else:
                parts[name] = one(name, _expanded(layer, self.batch_shape), shape)
        return self.join(parts)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Layered:
        """The same of another batch shape."""
        size = torch.Size(batch_shape)
        return Layered(
            {
                name: layer.expand(size) if isinstance(layer, Distribution) else layer
                for name, layer in self.layers.items()
            }
        )

    def __repr__(self) -> str:
        return f"Layered({', '.join(self.layers)})"

    def _known(self) -> dict[str, tuple[torch.Size, torch.dtype | None]]:
        """Event shape and integer type of each latent, in the event's order, seen when drawn or looked up."""
        if len(self._profiles) < len(self.layers):
            _ = self.examples
        return {name: self._profiles[name] for name in self.layers}

    def _note(self, name: str, layer: Distribution) -> None:
        integer = isinstance(_innermost(layer), td.Categorical)
        self._profiles[name] = layer.event_shape, torch.int64 if integer else None

    def one_given(
        self, name: str, parts: Mapping[str, Tensor], rows: torch.Size | None = None
    ) -> Distribution:
        """The distribution of a latent, whose batch shape broadcasts to ``rows`` where these are told."""
        layer = self.layers[name]
        if not isinstance(layer, Distribution):
            layer = layer(**{parent: parts[parent] for parent in self.parents[name]})
            if not isinstance(layer, Distribution):
                raise UsageError(f"the function of {name} returned a {type(layer).__name__}, no distribution")
        if rows is not None and not _broadcasts(layer.batch_shape, rows):
            raise UsageError(
                f"the distribution of {name} has batch shape {tuple(layer.batch_shape)}, expected "
                f"{tuple(rows)}: Independent(…, 1) makes the last dimension part of the event"
            )
        return layer


class Reading:
    """A function of named latents as one of z, see `reading`.

    Attributes:
        reads: the latents it takes.
    """

    def __init__(self, layered: Layered, function: Callable[..., Tensor]) -> None:
        self.layered, self.function = layered, function
        self.reads = _arguments("log_likelihood", function)
        _check_names("log_likelihood", self.reads, layered.layers)

    def __call__(self, z: Tensor) -> Tensor:
        """Of z (..., D)."""
        parts = self.layered.split(z)
        return self.function(**{name: parts[name] for name in self.reads})


def reading(layered: Distribution, function: Callable[..., Tensor]) -> Reading:
    """A log-likelihood written over named latents, as one of z that `Target` takes.

    ``Target(reading(prior, lambda z1: log_p(x, z1)), prior)``; the target then knows which latents are read
    (`Target.reads`).

    Args:
        layered: the posterior or the prior, which know what lies where in z.
        function: of latents (S, *batch, *event) by their names.

    Raises:
        UsageError: the distribution has no named latents, or the function takes another.
    """
    if not isinstance(layered, Layered):
        raise UsageError(f"reading needs a Layered, whose latents have names, not a {type(layered).__name__}")
    return Reading(layered, function)


def unlike(q: Distribution, prior: Distribution) -> str | None:
    """Why two layered distributions are not over the same latents, or None."""
    if not isinstance(q, Layered) or not isinstance(prior, Layered):
        return None
    if list(q.layers) != list(prior.layers):
        ours, theirs = ", ".join(q.layers), ", ".join(prior.layers)
        return (
            f"the posterior's latents are {ours}, the prior's {theirs}: give both the same names in one order"
        )
    for name, shape in q.event_shapes.items():
        if prior.event_shapes[name] != shape:
            other = tuple(prior.event_shapes[name])
            return f"{name} has event shape {tuple(shape)} in the posterior and {other} in the prior"
    return None


def not_one_latent(q: Distribution, instead: str) -> str | None:
    """That q has several latents, for what takes one, and what to use ``instead``; or None."""
    return f"takes one latent, not several in layers: use {instead}" if isinstance(q, Layered) else None


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """The sum over latents."""
    first, *others = parts.values()
    for other in others:
        first = first + other
    return first


def _arguments(name: str, layer: Distribution | Callable[..., object]) -> tuple[str, ...]:
    """The latents that a function takes: its arguments without a default, or what it says in ``parents``."""
    if isinstance(layer, Distribution):
        return ()
    if not callable(layer):
        raise UsageError(
            f"{name} is a {type(layer).__name__}, neither a distribution nor a function of latents"
        )
    named = getattr(layer, "parents", None)
    if named is not None:
        return tuple(named)
    parameters = inspect.signature(layer.forward if isinstance(layer, nn.Module) else layer).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(
        argument
        for argument, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variable
    )


def _check_names(name: str, needed: Sequence[str], latents: Mapping[str, object]) -> None:
    for argument in needed:
        if argument not in latents:
            raise UsageError(f"{name} takes {argument}, which is none of the latents {', '.join(latents)}")


def _topological(parents: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Ancestors before descendants, else in the order of the names."""
    if not parents:
        raise UsageError("Layered needs a latent at least")
    for name, needed in parents.items():
        _check_names(f"the distribution of {name}", needed, parents)
    done: list[str] = []
    while len(done) < len(parents):
        ready = [n for n, needed in parents.items() if n not in done and all(p in done for p in needed)]
        if not ready:
            circle = ", ".join(n for n in parents if n not in done)
            raise UsageError(f"the latents {circle} depend on each other: one of them must be drawn first")
        done.append(ready[0])
    return tuple(done)


def _broadcasts(shape: torch.Size, rows: torch.Size) -> bool:
    """Whether a batch shape broadcasts to these rows."""
    pairs = zip(reversed(shape), reversed(rows), strict=False)
    return len(shape) <= len(rows) and all(size in (1, row) for size, row in pairs)


def _expanded(layer: Distribution, rows: torch.Size) -> Distribution:
    return layer if layer.batch_shape == rows else layer.expand(rows)


def _innermost(layer: Distribution) -> Distribution:
    while isinstance(layer, td.Independent):
        layer = layer.base_dist
    return layer


def _zeros(layer: Distribution, rows: torch.Size) -> Tensor:
    """A z of zeros, (*rows, *event)."""
    like = _tensor_of(layer)
    integer = isinstance(_innermost(layer), td.Categorical)
    like = torch.zeros(()) if like is None else like
    return like.new_zeros(rows + layer.event_shape, dtype=torch.int64 if integer else None)


def _tensor_of(layer: Distribution) -> Tensor | None:
    """One of those that it is made of, or that one is which it is made of itself."""
    for value in vars(layer).values():
        found = _tensor_of(value) if isinstance(value, Distribution) else value
        if isinstance(found, Tensor):
            return found
    return None
