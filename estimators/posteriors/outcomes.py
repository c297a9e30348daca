"""Every value that a discrete z can take: how many there are, any of them, and what each variable can be."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints

from .layered import Layered

MAX_OUTCOMES = 2**20


class Outcomes:
    """The outcomes of a posterior in lexicographic order, made as they are asked for.

    Args:
        q: over a finite support.

    Attributes:
        supports: what each of the variables that make up one event can be, (K_j, *event of a variable).
    """

    def __init__(self, q: Distribution) -> None:
        supports = supports_of(q)
        assert supports is not None, "the support is not finite"
        self.supports = supports
        self._ones, self._event = (1,) * len(q.batch_shape), q.event_shape

    def __len__(self) -> int:
        return math.prod([len(values) for values in self.supports])

    def between(self, start: int, stop: int) -> Shaped[Tensor, "n *ones_event"]:
        """z of numbers start … stop − 1, (n, *ones, *event), one for all data."""
        return self.at(torch.arange(start, stop, device=self.supports[0].device))

    def at(self, numbers: Shaped[Tensor, "n"]) -> Shaped[Tensor, "n *ones_event"]:
        """z of any numbers."""
        coordinates = []
        for values in reversed(self.supports):
            coordinates.append(values[numbers % len(values)].reshape(len(numbers), -1))
            numbers = numbers // len(values)
        return torch.cat(coordinates[::-1], 1).reshape(-1, *self._ones, *self._event)


def outcomes(q: Distribution) -> int | None:
    """Number of values z can take, or None when the support is not finite."""
    supports = supports_of(q)
    return None if supports is None else math.prod([len(values) for values in supports])


def too_many(q: Distribution, samples: int = 1) -> str | None:
    """Why the outcomes of a posterior with a finite support, or tuples of them, are too many; or None."""
    supports = supports_of(q)
    assert supports is not None, "the support is not finite"
    sizes = [len(values) for values in supports]
    count = math.prod(sizes)
    if count**samples <= MAX_OUTCOMES:
        return None
    alike = len(sizes) > 1 and len(set(sizes)) == 1
    number = f"{sizes[0]}^{len(sizes)}" if alike and count > MAX_OUTCOMES else f"{count}"
    if samples > 1:
        number = f"({number})^{samples}" if "^" in number else f"{number}^{samples}"
    return f"{number} outcomes are too many to enumerate (at most {MAX_OUTCOMES})"


def enumerate_outcomes(q: Distribution) -> Shaped[Tensor, "outcomes *batch_event"]:
    """Every z, (outcomes, *batch, *event)."""
    every = Outcomes(q)
    z = every.between(0, len(every))
    return z.expand(-1, *q.batch_shape, *q.event_shape)


def supports_of(q: Distribution) -> list[Tensor] | None:
    """What each of the variables that make up one event can be, or None where that is endless.

    Of a distribution over an event whose support says that its coordinates are free bits, these are its
    variables, dependent or not; of any other, what `enumerate_support` lists is one variable. Of several
    latents they are those of each, in the event's order.
    """
    if isinstance(q, Layered):
        return _supports_of_layers(q)
    base = q
    while isinstance(base, td.Independent):
        base = base.base_dist
    if not base.has_enumerate_support:
        return None
    components = math.prod(q.event_shape[: len(q.event_shape) - len(base.event_shape)])
    if isinstance(base, td.Binomial):  # whose variables may have a count each
        counts = base.total_count.reshape(-1, components)
        if bool((counts != counts[0]).any()):
            return None  # nor are they the same for all data
        return [torch.arange(1 + int(count)).to(base.probs) for count in counts[0]]
    if len(base.event_shape) == 1 and _is_free_bits(base):
        like = next((value for value in vars(base).values() if isinstance(value, Tensor)), torch.empty(0))
        return [torch.arange(2).to(like)] * (components * base.event_shape[0])
    values = base.enumerate_support(expand=False)
    return [values.reshape(values.shape[0], *base.event_shape)] * components


def _supports_of_layers(q: Layered) -> list[Tensor] | None:
    found: list[Tensor] = []
    for name in q.layers:
        layer = q.examples[name]
        base = layer
        while isinstance(base, td.Independent):
            base = base.base_dist
        # How many values a Binomial takes could depend on other latents.
        supports = None if isinstance(base, td.Binomial) and q.parents[name] else supports_of(layer)
        if supports is None:
            return None
        found += supports
    return found


def log_tables(q: Distribution) -> Float[Tensor, "K *batch variables"] | None:
    """log q of each value of each variable, attached to φ; None where they are dependent, or not alike."""
    base, supports = q, supports_of(q)
    while isinstance(base, td.Independent):
        base = base.base_dist
    if (
        supports is None
        or isinstance(q, Layered)
        or base.batch_shape.numel() != q.batch_shape.numel() * len(supports)
    ):
        return None  # one event of the base is several variables
    values = supports[0]
    if any(other is not values for other in supports):
        return None
    z = values.reshape(-1, *(1,) * len(base.batch_shape), *base.event_shape)
    log_q = base.log_prob(z.expand(-1, *base.batch_shape, *base.event_shape))
    return log_q.reshape(len(values), *q.batch_shape, -1)


def _is_free_bits(q: Distribution) -> bool:
    try:
        support = q.support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.boolean))
