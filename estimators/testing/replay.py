"""The random numbers of one call given to another: of a part of its batch, or in another type.

Two calls of an estimator that differ in nothing but the shape of the batch, or in its floating-point type,
can then be compared number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base import Estimate, Estimator, Target
from .random_operations import Drawn, RandomOperations
from .toy_problems import ToyProblem
from .trial import SEED, Outcome, evaluate


class NoCounterpart(Exception):
    """The second call draws other numbers than the first, or has no place for them."""


@dataclass(frozen=True)
class Part:
    """Entries ``start`` to ``start + kept`` of one dimension of the batch, of ``size``, are drawn again.

    Attributes:
        size: of that dimension in the first call.
        start: the first entry of the second call.
        kept: how many.
        before: samples that lie before the batch where a dimension holds both, flattened.
    """

    size: int
    start: int
    kept: int
    before: int = 1

    def of(self, drawn: Tensor, shape: Sequence[int]) -> Tensor:
        """The part of ``drawn`` that a tensor of this shape has in its place.

        What does not depend on the batch stays whole. A dimension of the batch may be flattened with those
        behind it, and with the samples before it.

        Raises:
            NoCounterpart: the shapes differ otherwise.
        """
        if drawn.shape == tuple(shape):
            return drawn
        if drawn.dim() != len(shape):
            raise NoCounterpart
        differ = [i for i, n in enumerate(shape) if drawn.shape[i] != n]
        where = differ[0]
        rest, odd = divmod(drawn.shape[where], self.size * self.before)
        if len(differ) > 1 or odd or self.before * self.kept * rest != shape[where]:
            raise NoCounterpart
        parts = drawn.unflatten(where, (self.before, self.size, rest))
        return parts.narrow(where + 1, self.start, self.kept).reshape(tuple(shape))


@dataclass(frozen=True)
class Same:
    """The second call draws what the first did, in its own type."""

    def of(self, drawn: Tensor, shape: Sequence[int]) -> Tensor:
        """``drawn``, if it has this shape.

        Raises:
            NoCounterpart: it has not.
        """
        if drawn.shape != tuple(shape):
            raise NoCounterpart
        return drawn


class Replay(RandomOperations):
    """While it is active, random operations give what others gave, or the part of it that is asked for.

    Args:
        drawn: what was recorded.
        part: which of it.
    """

    def __init__(self, drawn: Sequence[Drawn], part: Part | Same) -> None:
        super().__init__(self._instead)
        self._source, self._part, self._taken = drawn, part, False

    def _instead(self, index: int, own: Drawn) -> Tensor:
        if index >= len(self._source) or own.name != self._source[index].name:
            raise NoCounterpart
        output = self._source[index].output
        self._taken |= isinstance(self._part, Same) or own.output.shape != output.shape
        return self._part.of(output, own.output.shape).to(own.output.dtype)

    def finish(self) -> None:
        """Everything was asked for.

        Raises:
            NoCounterpart: it was not, or nothing that was has the batch in its shape: then the numbers of an
                estimate are drawn where they cannot be seen.
        """
        if len(self.drawn) != len(self._source) or self.unseen or (self.drawn and not self._taken):
            raise NoCounterpart


def recorded(
    estimator: Estimator, problem: ToyProblem, num_samples: int, target: Target | None = None
) -> tuple[Outcome, list[Drawn]]:
    """An estimate, and what it drew.

    Raises:
        NoCounterpart: it draws in a way that cannot be replaced.
    """
    operations = RandomOperations()
    outcome = _under(operations, estimator, problem, num_samples, target)
    if operations.unseen:
        raise NoCounterpart
    return outcome, operations.drawn


def replayed(
    estimator: Estimator,
    problem: ToyProblem,
    num_samples: int,
    drawn: Sequence[Drawn],
    part: Part | Same,
    target: Target | None = None,
) -> Outcome:
    """An estimate that draws the numbers of another call, or a part of them.

    Raises:
        NoCounterpart: it asks for other numbers.
    """
    operations = Replay(drawn, part)
    outcome = _under(operations, estimator, problem, num_samples, target)
    operations.finish()
    return outcome


def draws_alike(estimator: Estimator, problems: Sequence[ToyProblem], num_samples: int) -> bool:
    """Whether two batches ask for the same numbers of random numbers in the same order.

    Of dropout nothing is known but that its mask may have the shape of the data.
    """
    asked = []
    for problem in problems:
        operations = RandomOperations()
        _under(operations, estimator, problem, num_samples, None)
        asked.append([(drawn.name, drawn.output.numel()) for drawn in operations.drawn] + [operations.unseen])
    return asked[0] == asked[1] and (not operations.unseen or len({p.eta.shape[-2] for p in problems}) == 1)


def _under(
    operations: RandomOperations,
    estimator: Estimator,
    problem: ToyProblem,
    num_samples: int,
    target: Target | None,
) -> Outcome:
    def watched(*arguments: Any) -> Estimate:
        with operations:
            return estimator(*arguments)

    torch.manual_seed(SEED)
    return evaluate(watched, problem, num_samples, target)
