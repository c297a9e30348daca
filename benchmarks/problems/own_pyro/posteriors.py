"""Distributions of a program's statements as the protocol has them: from η, and of any leading dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints

from ....estimators.errors import UsageError
from ....estimators.posteriors.distributions import cut, parameters_of, with_parameters
from .sites import holds_modules, is_plain, tensors_in

#: What a program's modules are the copies in, which a problem learns.
Inside = Callable[[], AbstractContextManager[None]]


class Layout(NamedTuple):
    """How the parameters of a latent's distribution, which depends on no other latent, lie in η.

    Attributes:
        template: one of its family.
        shapes: of each parameter for a datum, by name.
        scalar: whether an event is one number, which becomes a vector of one.
    """

    template: Distribution
    shapes: dict[str, torch.Size]
    scalar: bool

    @property
    def width(self) -> int:
        """Numbers in η."""
        return sum(shape.numel() for shape in self.shapes.values())

    def parts(self, start: int) -> dict[str, slice]:
        """Where each parameter lies in η, from ``start`` on."""
        found = {}
        for name, shape in self.shapes.items():
            found[name] = slice(start, start + shape.numel())
            start += shape.numel()
        return found

    def numbers(self, q: Distribution) -> Tensor:
        """(B, width) of a distribution of batch shape (B,)."""
        return torch.cat([value.reshape(len(value), -1) for value in parameters_of(q).values()], -1)

    def posterior(self, numbers: Tensor) -> Distribution:
        """A distribution of batch shape (*batch) of (*batch, width)."""
        flat = numbers.split([shape.numel() for shape in self.shapes.values()], -1)
        values = {
            name: part.reshape(*numbers.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), flat, strict=True)
        }
        return (
            vector(with_parameters(self.template, values))
            if self.scalar
            else with_parameters(self.template, values)
        )


def layout_of(q: Distribution, scalar: bool) -> Layout | None:
    """Of a distribution (B,); None where its parameters are not known, or not each datum's own."""
    try:
        parameters = parameters_of(q)
        template = cut(q)
    except TypeError:
        return None
    if any(p.shape[:1] != q.batch_shape or not p.is_floating_point() for p in parameters.values()):
        return None
    shapes = {name: value.shape[1:] for name, value in parameters.items()}
    return Layout(template, shapes, scalar and not q.event_shape)


def known(q: Distribution) -> bool:
    """Whether the parameters of a distribution are."""
    try:
        parameters_of(q)
    except TypeError:
        return False
    return True


def all_numbers(q: Distribution) -> list[Tensor]:
    """What a distribution of another family, (B,), is made of: its numbers of each datum, (B, n) each."""
    return [
        tensor.reshape(len(tensor), -1)
        for tensor in tensors_in(q)
        if tensor.is_floating_point() and tensor.shape[:1] == q.batch_shape
    ]


def vector(q: Distribution) -> Distribution:
    """A distribution of numbers as one of vectors of one number; of batch shape (*batch) both."""
    values = {name: p.unsqueeze(len(q.batch_shape)) for name, p in parameters_of(q).items()}
    return td.Independent(with_parameters(q, values), 1, validate_args=False)


def shaped(q: Distribution, lead: torch.Size, inside: Inside) -> Distribution:
    """A distribution of batch shape (N,) as one of batch shape ``lead``, of N entries.

    Args:
        q: the distribution.
        lead: its new batch shape.
        inside: what one that computes with networks when it is asked has to be asked in.
    """
    if q.batch_shape == lead and is_plain(q):
        return q
    try:
        values = parameters_of(q)
    except TypeError:
        return PyroDistribution(q, lead, inside)
    if holds_modules(q) or any(p.shape[:1] != q.batch_shape for p in values.values()):
        return PyroDistribution(q, lead, inside)
    return with_parameters(q, {name: p.reshape(*lead, *p.shape[1:]) for name, p in values.items()})


class NoDensity(UsageError, NotImplementedError):
    """A flow that cannot be inverted."""


class PyroDistribution(Distribution):
    """A distribution of batch shape (N,), of a family of its own, under another batch shape."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, base: Distribution, lead: torch.Size, inside: Inside) -> None:
        self.base_dist, self.inside = base, inside
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(lead, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base's."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> constraints.Constraint | None:
        """The base's."""
        return self.base_dist.support

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, *batch, *event)."""
        with self.inside():
            return self._unflattened(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The same, differentiable."""
        with self.inside():
            y = self.base_dist.rsample(torch.Size(sample_shape))
        z = self._unflattened(y)
        if torch.is_grad_enabled():
            self._drawn = z, y
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """log of z (..., *batch, *event), (..., *batch)."""
        rows = value.shape[: value.dim() - len(self.event_shape)]
        outer = rows[: len(rows) - len(self.batch_shape)]
        flat = value.expand(*outer, *self.batch_shape, *self.event_shape)
        at = flat.reshape(*outer, -1, *self.event_shape)
        if self._drawn is not None and self._drawn[0] is value:
            at = self._drawn[1]  # of which a flow without an inverse knows where it came from
        try:
            with self.inside():
                found: Tensor = self.base_dist.log_prob(at)
        except (KeyError, NotImplementedError) as error:
            raise NoDensity(
                "log q(z) at a given z is not known, for a transform of the guide's flow has no inverse: "
                "reparameterization[kl=sampled] takes it with the draw"
            ) from error
        return found.reshape(*outer, *self.batch_shape)

    def _unflattened(self, z: Tensor) -> Tensor:
        rows = z.shape[: z.dim() - len(self.event_shape) - 1]
        return z.reshape(*rows, *self.batch_shape, *self.event_shape)


class Conditional:
    """The distribution of a latent given others, by running its program.

    Args:
        parents: the names of those that it depends on.
        run: from (rows, values of the parents (N, *event) by name) to a distribution of batch shape (N,);
            rows is the shape (S, *batch) that N is made of.
        batch: (*batch).
        events: the parents' event shapes, by name.
        inside: see `shaped`.
    """

    def __init__(
        self,
        parents: tuple[str, ...],
        run: Callable[[torch.Size, Mapping[str, Tensor]], Distribution],
        batch: torch.Size,
        events: Mapping[str, torch.Size],
        inside: Inside,
    ) -> None:
        self.parents, self.run, self.batch, self.events = parents, run, batch, events
        self.inside = inside

    def __call__(self, **values: Tensor) -> Distribution:
        """Of batch shape (S, *batch) for parents (S, *batch, *event)."""
        leads = [v.shape[: v.dim() - len(self.events[name])] for name, v in values.items()]
        lead = torch.broadcast_shapes(self.batch, *leads)
        flat = {
            name: value.expand(*lead, *self.events[name]).reshape(-1, *self.events[name])
            for name, value in values.items()
        }
        return shaped(self.run(lead, flat), lead, self.inside)
