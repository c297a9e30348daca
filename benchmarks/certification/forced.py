"""Everything that an estimate can be, where it draws nothing but a few bits or states: a proof and no test.

The numbers that torch draws are replaced by every combination of them in turn, each weighed with the
probability that torch was asked for. What comes out is no sample: mean, value and variance are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...estimators.testing.random_operations import Drawn, RandomOperations
from .noise import Noise, noise_of

MOST_ROWS = 2**14  # combinations, which take less time than draws
_ROWS_AT_A_TIME = 2**11


@dataclass(frozen=True)
class Numbers:
    """The numbers that one random operation draws for a datum.

    Attributes:
        samples, variables: how many there are.
        states: that each can be.
    """

    samples: int
    variables: int
    states: int

    @property
    def count(self) -> int:
        """Of combinations."""
        return int(self.states ** (self.samples * self.variables))


def numbers_of(
    operations: Sequence[Drawn], replicates: int, data: int, most: int = MOST_ROWS
) -> list[Numbers] | None:
    """What the operations of one call draw for a datum, or None where that is not few bits or states.

    Few are those with ``most`` combinations or less.
    """
    found = []
    for operation in operations:
        noise = noise_of(operation, replicates, data)
        if noise is None or not noise.states:
            return None
        samples, *_, variables = noise.values.shape
        found.append(Numbers(samples, variables, noise.states))
    combinations = math.prod(one.count for one in found)
    return found if found and combinations <= most else None


class Forced:
    """All combinations of the numbers of a call, some rows at a time.

    Args:
        numbers: of each random operation of a call, in order.
        data: B.
    """

    def __init__(self, numbers: Sequence[Numbers], data: int) -> None:
        self.numbers, self.data = list(numbers), data
        self.total = math.prod(one.count for one in self.numbers)

    def chunks(self) -> Sequence[Int64[Tensor, "n"]]:
        """The rows, as many at a time as are taken together."""
        return torch.arange(self.total).split(_ROWS_AT_A_TIME)

    def run(self, rows: Int64[Tensor, "n"], call: Callable[[int], object]) -> Float[Tensor, "n B"]:
        """Call with these combinations in the place of what is drawn; returns what they weigh.

        Raises:
            AnotherDraw: the call draws other numbers than it did before.
        """
        codes = self._codes(rows)
        log_weights: list[Tensor] = []

        def replace(index: int, drawn: Drawn) -> Tensor:
            if index >= len(self.numbers):
                raise AnotherDraw
            noise = noise_of(drawn, len(rows), self.data)
            wanted = self.numbers[index]
            if noise is None or (noise.values.shape[0], noise.values.shape[-1], noise.states) != (
                wanted.samples,
                wanted.variables,
                wanted.states,
            ):
                raise AnotherDraw
            code = codes[index].movedim(0, 1).unsqueeze(2).expand(-1, -1, self.data, -1)  # (L, n, B, V)
            code = code.to(drawn.output.device)
            log_weights.append(_log_probability(noise, code))
            if noise.kind == "states":
                return code.movedim(0, -1).reshape(drawn.output.shape).to(drawn.output.dtype)
            return code.reshape(drawn.output.shape).to(drawn.output.dtype)

        with RandomOperations(replace):
            call(len(rows))
        if len(log_weights) != len(self.numbers):
            raise AnotherDraw
        return torch.stack(log_weights).sum(0).exp()

    def _codes(self, rows: Int64[Tensor, "n"]) -> list[Int64[Tensor, "n L V"]]:
        """The states of every number in these rows, for each operation: the digits of the rows' numbers."""
        left = rows
        found = []
        for one in self.numbers:
            digits = []
            for _ in range(one.samples * one.variables):
                digits.append(left % one.states)
                left = left // one.states
            found.append(torch.stack(digits, -1).reshape(-1, one.samples, one.variables))
        return found


class AnotherDraw(Exception):
    """What is drawn depends on something else than was thought."""


def _log_probability(noise: Noise, code: Int64[Tensor, "L n B V"]) -> Float[Tensor, "n B"]:
    """Of these states under the probabilities that torch was given."""
    assert noise.parameter is not None
    if noise.kind == "bits":
        p = noise.parameter
        each = torch.where(code == 1, p.log(), torch.log1p(-p))
    else:
        table = noise.parameter.log().expand(code.shape[0], *noise.parameter.shape[1:])
        each = table.gather(-1, code.unsqueeze(-1)).squeeze(-1)
    return each.sum((0, -1))
