"""Two layers of bits, one drawn given the other: the posterior and the prior of a belief network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import softplus

#: From bits (..., D) of one layer to the logits (..., D') of the other.
Network = Callable[[Tensor], Tensor]


class LayeredBernoulli(Distribution):
    """z = (z¹, z²), D₁ + D₂ bits: independent in the layer that is drawn first, in the other given that one.

    A score function is all that such a posterior offers: its bits are not independent, and what the network
    holds is reached by log q alone.

    Args:
        logits: (*batch, D) of the layer that is drawn first.
        network: gives the other's logits.
        sizes: D₁, D₂.
        top_down: z² is drawn first, as in a prior; else z¹.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(
        self, logits: Tensor, network: Network, sizes: tuple[int, int], *, top_down: bool = False
    ) -> None:
        self.logits, self.network, self.sizes, self.top_down = logits, network, sizes, top_down
        super().__init__(logits.shape[:-1], torch.Size((sum(sizes),)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of z (..., D₁ + D₂), (...)."""
        lower, upper = value.split(self.sizes, -1)
        first, second = (upper, lower) if self.top_down else (lower, upper)
        return _log_bernoulli(first, self.logits) + _log_bernoulli(second, self.network(first))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """z (*sample_shape, *batch, D₁ + D₂)."""
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            first = torch.bernoulli(logits.sigmoid())
            second = torch.bernoulli(self.network(first).sigmoid())
        return torch.cat((second, first) if self.top_down else (first, second), -1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every z, (2^(D₁ + D₂), *batch, D₁ + D₂); with ones in place of the batch without ``expand``."""
        bits = torch.cartesian_prod(*[torch.arange(2).to(self.logits)] * sum(self.sizes))
        z = bits.reshape(-1, *(1,) * len(self.batch_shape), sum(self.sizes))
        return z.expand(-1, *self.batch_shape, -1) if expand else z


def _log_bernoulli(z: Tensor, logits: Tensor) -> Tensor:
    return -softplus((1 - 2 * z) * logits).sum(-1)
