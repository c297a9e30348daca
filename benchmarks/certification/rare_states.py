"""States too rare to be drawn: where estimates may differ from all that were seen.

A mean over draws without such a state is off by its probability, times what it is worth, and looks certain
where features explain the estimates in all other states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .noise import Noise

Cuts = dict[int, Tensor]  # p of V numbers (B, V), by V; see `basis.cuts_of`

_SEEN = 10  # times that a set of states must be expected: it is missed with probability e⁻¹⁰ then
SEEN_BY_A_FIT = 25  # times that draws must be expected to show what a function of them tells apart
_NEVER = 1e-12  # a probability that is rounding
_MOST = 4096  # joint states of a sample's numbers, beyond which those of pairs of numbers are looked at
_REPLICATES = 64  # whose probabilities are averaged, where these are drawn themselves


class RareStates:
    """The states of one sample of each random operation of an estimate.

    Of uniform numbers that decide of states they are the pieces between the places where they decide.

    Args:
        noise: of all operations that are understood.
        data: B.
        cuts: see `basis.cuts_of`.
    """

    def __init__(self, noise: Sequence[Noise], data: int, cuts: Cuts) -> None:
        self._data = data
        found = ((one.values.shape[0], probabilities(one, cuts), one.states) for one in noise)
        tables = [(samples, table, states) for samples, table, states in found if table is not None]
        self._tables = [(samples, table) for samples, table, _ in tables]
        self._sums = [(samples, _rarest(table)) for samples, table in self._tables]
        # Between p and 1 − p other states meet, but none that is not drawn elsewhere.
        self._states = [(samples, table if states else table[..., :2]) for samples, table, states in tables]

    def unseen(self, draws: int) -> Float[Tensor, "B"]:
        """The probability of the rarest states that so many estimates may not show one of, together."""
        total = torch.zeros(self._data, dtype=torch.float64)
        for samples, sums in self._sums:
            total = total.to(sums) + (sums * (draws * samples * sums <= _SEEN)).amax(-1)
        return total

    def missing(self, draws: int) -> Bool[Tensor, "B"]:
        """Whether so many estimates may lack some state of one number, whatever the others are."""
        return self._fewer(self._states, draws, _SEEN)

    def hardly(self, draws: int) -> Bool[Tensor, "B"]:
        """Whether so many estimates are expected to show some state of a number less than 25 times."""
        return self._fewer(self._tables, draws, SEEN_BY_A_FIT)

    def _fewer(
        self, tables: list[tuple[int, Float[Tensor, "B V K"]]], draws: int, times: int
    ) -> Bool[Tensor, "B"]:
        found = torch.zeros(self._data, dtype=torch.bool)
        for samples, table in tables:
            rare = (table > _NEVER) & (draws * samples * table < times)
            found = found.to(rare.device) | rare.flatten(1).any(-1)
        return found


def probabilities(noise: Noise, cuts: Cuts) -> Float[Tensor, "B V K"] | None:
    """Of the states of each number, or the pieces of a uniform one; None where there are none."""
    if noise.states:
        assert noise.parameter is not None
        p = noise.parameter[0, :_REPLICATES].mean(0)
        return torch.stack((p, 1 - p), -1) if noise.kind == "bits" else p
    width = noise.values.shape[-1]
    if noise.kind != "uniform" or width not in cuts:
        return None
    p = cuts[width]
    low, high = torch.minimum(p, 1 - p), torch.maximum(p, 1 - p)
    return torch.stack((low, 1 - high, high - low), -1)


def _rarest(table: Float[Tensor, "B V K"]) -> Float[Tensor, "B cells"]:
    """Probabilities of joint states, the least first, added up."""
    numbers = table.unbind(1)
    if table.shape[-1] ** len(numbers) <= _MOST:
        cells = _joint(numbers)
    else:
        cells = torch.cat([_joint(pair) for pair in itertools.combinations(numbers, 2)], -1)
    return cells.sort(-1).values.cumsum(-1)


def _joint(numbers: Sequence[Float[Tensor, "B K"]]) -> Float[Tensor, "B cells"]:
    cells = numbers[0]
    for number in numbers[1:]:
        cells = (cells.unsqueeze(-1) * number.unsqueeze(1)).flatten(1)
    return cells
