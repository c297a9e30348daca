"""Antithetic pairs of discrete samples, and what DisARM credits each bit with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from .objective import integrand_at
from .sticks import break_sticks
from .uniforms import open_uniform
from .variables import Variables


class Pairs(NamedTuple):
    """N antithetic pairs of samples, each sample distributed as q.

    Attributes:
        first, second: z and its mirror image, (N, *batch, *event).
        credit: (N, *batch, D, K − 1), (−1)^b̃ 1[b ≠ b̃] max(p, 1 − p) of every bit: times (f(z) − f(z̃))/2 it
            is the gradient in the bit's logit.
        logits: (*batch, D, K − 1), of the bits, attached to φ.
    """

    first: Shaped[Tensor, "N *batch_event"]
    second: Shaped[Tensor, "N *batch_event"]
    credit: Float[Tensor, "N *batch D sticks"]
    logits: Float[Tensor, "*batch D sticks"]

    def integrands(
        self, q: Distribution, target: Target, kl: str
    ) -> tuple[Float[Tensor, "N *batch"], Float[Tensor, "N *batch"]]:
        """f(z) and f(z̃), each (N, *batch), attached to θ, by one pass."""
        f, mirrored = integrand_at(q, target, torch.cat((self.first, self.second)), kl).chunk(2)
        return f, mirrored

    def surrogate(self, gradient: Float[Tensor, "*batch D sticks"]) -> Float[Tensor, "*batch"]:
        """What has this gradient in the bits' logits."""
        return (self.logits * gradient.detach()).sum((-2, -1))


def antithetic_pairs(variables: Variables, num_pairs: int) -> Pairs:
    """Draw b = 1[u > 1 − p] and b̃ = 1[u < p] for every bit, u uniform, and the samples that they spell.

    A K-ary variable is spelled by the bits of `break_sticks`. Bits behind the end of both its samples change
    neither; their credit, of mean zero, is left out.
    """
    sticks = break_sticks(variables)
    alpha = sticks.logits.detach().double()
    u = open_uniform((num_pairs, *alpha.shape), alpha)
    bits, mirrored = u > (-alpha).sigmoid(), u < alpha.sigmoid()
    place, other = sticks.place(bits), sticks.place(mirrored)
    positions = torch.arange(alpha.shape[-1], device=alpha.device)
    matters = positions <= torch.maximum(place, other).unsqueeze(-1)
    credit = (1 - 2 * mirrored.double()) * ((bits != mirrored) & matters) * alpha.abs().sigmoid()
    first, second = (variables.z(variables.one_hot(sticks.states(each))) for each in (place, other))
    return Pairs(first, second, credit.to(sticks.logits), sticks.logits)
