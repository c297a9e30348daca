"""What each variable of a discrete distribution can be, and every combination of them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints


class Combinations:
    """The values of several variables in lexicographic order, made as they are asked for.

    Args:
        supports: what each of the variables that make up one event can be, (K_j, *event of a variable).
        ones: dimensions of size one, for the batch, that they have.
        event: shape of one event, which all variables make up.
    """

    def __init__(self, supports: list[Tensor], ones: int, event: torch.Size) -> None:
        self.supports = supports
        self._ones, self._event = (1,) * ones, event

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


def supports_of_one(q: Distribution) -> list[Tensor] | None:
    """`outcomes.supports_of` of a distribution that is not layered."""
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


def _is_free_bits(q: Distribution) -> bool:
    try:
        support = q.support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.boolean))
