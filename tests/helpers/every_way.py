"""Every way in which an estimator's draws can fall, one an entry of the batch: exact means of whatever it draws.

What it draws is bits, states, whole numbers below a bound, and uniforms that only their cell of a grid matters of
(or their mean in it): a number of digits. A first call with a batch of one counts them, a second is dealt all.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import distributions as td

CELLS = 8  # of the uniforms: probabilities have to be multiples of an eighth


class Dealer:
    """Hands out digits instead of random numbers, and keeps the probability of all that it handed out.

    Args:
        radices: of the digits, in the order in which they are asked for; None to count them.

    Attributes:
        ways: M, the number of ways, the batch that is dealt to.
        weights: (M,), their probabilities.
    """

    def __init__(self, radices=None):
        self.counted = [] if radices is None else None
        self.radices = radices or []
        self.ways = 1
        for radix in self.radices:
            self.ways *= radix
        self.weights = torch.ones(self.ways, dtype=torch.float64)
        self._numbers, self._next = torch.arange(self.ways), 0

    def digits(self, radix, lead, size):
        """(*lead, M, size), digits below radix."""
        count = lead.numel() * size
        if self.counted is not None:
            self.counted += [radix] * count
            return torch.zeros(*lead, 1, size, dtype=torch.int64)
        found = []
        for _ in range(count):
            assert self.radices[self._next] == radix, "the second call drew something else than the first"
            self._next += 1
            found.append(self._numbers % radix)
            self._numbers = self._numbers // radix
        return torch.stack(found).reshape(*lead, size, self.ways).transpose(-1, -2)

    def weigh(self, probabilities):
        """Probabilities (*lead, M, size) of what was handed out."""
        self.weights = self.weights * probabilities.detach().prod(-1).reshape(-1, self.ways).prod(0)

    def bits(self, q, shape=()):
        p = q.probs.detach().expand(*shape, *q.probs.shape)
        bits = self.digits(2, p.shape[:-2], p.shape[-1])
        self.weigh(torch.where(bits == 1, p, 1 - p))
        return bits.to(p)

    def states(self, q, shape=()):
        p = q.probs.detach().expand(*shape, *q.probs.shape)
        states = self.digits(p.shape[-1], p.shape[:-3], p.shape[-2])
        self.weigh(p.gather(-1, states.unsqueeze(-1)).squeeze(-1))
        return states

    def uniforms(self, shape, **kwargs):
        # (samples, draws, M, D), or of the bits of a broken stick (samples, draws, M, D, 1).
        size = torch.Size(shape[3:])
        cells = self.digits(CELLS, torch.Size(shape[:2]), size.numel()).unflatten(-1, size)
        self.weights = self.weights / CELLS ** (cells.numel() // self.ways)
        return (cells.double() + 0.5) / CELLS

    def below(self, bound, shape, **kwargs):
        numbers = self.digits(bound, torch.Size(shape[:-1]), 1).squeeze(-1)
        self.weights = self.weights / bound ** (numbers.numel() // self.ways)
        return numbers

    @contextmanager
    def dealing(self):
        with (
            patch.object(td.Bernoulli, "sample", lambda q, shape=(): self.bits(q, shape)),
            patch.object(td.Categorical, "sample", lambda q, shape=(): self.states(q, shape)),
            patch.object(torch, "rand", self.uniforms),
            patch.object(torch, "randint", self.below),
        ):
            yield


def every_way(estimate):
    """(weights (M,), estimate) of every way: ``estimate`` is a function of M, the batch of its posterior."""
    counter = Dealer()
    with counter.dealing():
        estimate(1)
    dealer = Dealer(counter.counted)
    with dealer.dealing():
        found = estimate(dealer.ways)
    torch.testing.assert_close(dealer.weights.sum(), torch.ones((), dtype=torch.float64))
    return dealer.weights, found
