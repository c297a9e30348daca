"""The random numbers of many replicates drawn at once, dealt out to a loop that draws one at a time."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_DRAWING = (
    "rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_", "normal",
    "normal_", "normal_functional", "uniform_", "exponential_", "random_", "multinomial", "_standard_gamma",
    "native_dropout",
)  # fmt: skip


def _draws(func):
    return func._schema.name.removeprefix("aten::") in _DRAWING


class Recorded(TorchDispatchMode):
    """Keeps what each operation drew, in order."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if _draws(func):
            self.drawn.append(result.detach().clone())
        return result


class Dealt(TorchDispatchMode):
    """Gives to each operation that draws its share of what was drawn for all.

    Args:
        drawn: by `Recorded`, with the replicates along some dimension.
        replicates: R, which no other dimension has the size of.
        number: of the one whose share it is.
    """

    def __init__(self, drawn, replicates, number):
        super().__init__()
        self.left, self.replicates, self.number = list(drawn), replicates, number

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not _draws(func):
            return func(*args, **(kwargs or {}))
        wanted = func(*args, **(kwargs or {}))
        drawn = self.left.pop(0)
        share = self._share(drawn, wanted.shape).to(wanted.dtype)
        assert share.shape == wanted.shape, (func, share.shape, wanted.shape)
        return wanted.copy_(share)

    def _share(self, drawn, wanted):
        if len(drawn.shape) == len(wanted):  # replicates and data are one dimension
            (along,) = [d for d, size in enumerate(drawn.shape) if size == self.replicates * wanted[d]]
            drawn = drawn.unflatten(along, (self.replicates, -1))
        else:
            (along,) = [d for d, size in enumerate(drawn.shape) if size == self.replicates]
        return drawn.select(along, self.number)


def replicates_and_their_loop(draw, one, replicates):
    """Replicates drawn at once, (R, N), and those of a loop from the same random numbers.

    Args:
        draw: so many at once.
        one: one alone, (1, N).
        replicates: R, which no dimension of what is drawn for one has the size of.
    """
    with Recorded() as recorded:
        together = draw(replicates)
    assert recorded.drawn
    apart = []
    for number in range(replicates):
        with Dealt(recorded.drawn, replicates, number) as dealt:
            apart.append(one())
        assert not dealt.left
    return together, torch.cat(apart)
