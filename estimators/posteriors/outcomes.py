"""Every value that a discrete z can take: how many there are, any of them, and what each variable can be."""

from __future__ import annotations

import math

from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .layered import Layered
from .supports import Combinations, supports_of_one

MAX_OUTCOMES = 2**20


class Outcomes(Combinations):
    """The outcomes of a posterior in lexicographic order, made as they are asked for.

    Args:
        q: over a finite support.
    """

    def __init__(self, q: Distribution) -> None:
        supports = supports_of(q)
        assert supports is not None, "the support is not finite"
        super().__init__(supports, len(q.batch_shape), q.event_shape)


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
        return q.supports()
    return supports_of_one(q)


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
