"""K-ary variables as K − 1 bits each, by breaking a stick: what pairs and copulas of bits need."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .variables import Variables


class Sticks(NamedTuple):
    """Independent bits whose first 1 says which state a variable is in; none: the last, most likely one.

    States come in the order of their probability, smallest first, so that no bit has more than an even chance
    of being 1. A Bernoulli variable is one bit, z itself, whatever its probability.

    Attributes:
        logits: (*batch, D, K − 1), log-odds of each bit, attached to φ.
        order: (*batch, D, K), the states in that order.
    """

    logits: Float[Tensor, "*batch D sticks"]
    order: Int64[Tensor, "*batch D K"]

    @property
    def probs(self) -> Float[Tensor, "*batch D sticks"]:
        """P(bit = 1), detached."""
        return self.logits.detach().sigmoid()

    def place(self, bits: Bool[Tensor, "*rows D sticks"]) -> Int64[Tensor, "*rows D"]:
        """Where in the order the first 1 is, K − 1 where there is none."""
        ended = torch.cat((bits, torch.ones_like(bits[..., :1])), -1)
        return ended.int().argmax(-1)

    def states(self, place: Int64[Tensor, "*rows D"]) -> Int64[Tensor, "*rows D"]:
        """The state at a place in the order."""
        order = self.order.expand(*place.shape, self.order.shape[-1])
        return order.gather(-1, place.unsqueeze(-1)).squeeze(-1)


def break_sticks(variables: Variables) -> Sticks:
    """The bits of every variable."""
    logits = variables.logits
    if variables.kind == "bernoulli":
        order = torch.tensor([1, 0], device=logits.device).expand(logits.shape)
        return Sticks(logits[..., 1:] - logits[..., :1], order)
    order = logits.detach().argsort(-1)
    ascending = logits.gather(-1, order)
    # log Σ of what comes after each state, summed from the largest.
    rest = ascending.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]
    return Sticks(ascending[..., :-1] - rest, order)
