"""Claims tested by sampling, look after look, until the answer is clear or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from ...estimators.errors import EstimatorError
from ..rows.certificate_checks import BiasBound
from .blocks import Block, Chunk, bias_of
from .levels import LOOKS
from .moments import ColumnSums
from .outcome import Outcome
from .pilot import explain
from .source import Source
from .subject import OtherDraws, Subject

_FIRST_LOOK = 4096
_LEAST_LOOK = 512
_GROWTH = 4
_GROUPS = 64  # of a look: what is a mean over data and estimates is drawn for each
_OF_A_GROUP = 128  # a part of the estimates of a look, each; such means take longer than all else
_OF_A_LATE_GROUP = 64  # the same of later looks, where such means were not clear
_FEW_GROUPS = 8  # where all of their noise is known
_ALL = 1e-7  # of the noise, that is left where all of it is known
_PILOT_GROUPS, _OF_A_PILOT = 8, 16  # groups, and estimates in each
_OF_MEANS = ("theta", "phi")
_LOOKS_OF_MEANS = 2  # at least; they take as long as all else, and no bound needs more
_FEW_EVALUATIONS = 2**15  # of a first look
_LEAST_WORK = 2**17  # evaluations that are spent where the time allows
_CANCELLED = 100  # units of rounding, where a gradient is made of values of order 1
_WIDE = 0.1  # of a declared bias, the width of its interval that is too much
_VARIANCE_LOOKS, _MOST_VARIANCE_LOOKS = 2, 3  # where a variance is tested; more where it has no verdict


def sample(subject: Subject, deadline: float) -> Outcome:
    """Every claim at the place, by draws.

    Args:
        subject: what is drawn, and held against what.
        deadline: `time.monotonic()` after which no further look is begun.

    Raises:
        NotFinite: an estimate is not.
        EstimatorError: it breaks the protocol.
    """
    try:
        return Looks(subject, followed=True).run(deadline)
    except OtherDraws:
        return Looks(subject, followed=False).run(deadline)


class Looks:
    """The draws of a place; what features explain of them is fitted when it is made.

    Args:
        subject: what is drawn.
        followed: whether estimates are compared with features of their noise.

    Attributes:
        bias: by all looks so far; None before the first.
    """

    def __init__(self, subject: Subject, followed: bool) -> None:
        self.subject, self._groups = subject, _GROUPS
        self._source = Source(subject, followed)
        self.first = min(max(_FEW_EVALUATIONS // self._source.work, _LEAST_LOOK), _FIRST_LOOK)
        self.explained = explain(self._source)
        self.blocks, self.bounded = subject.blocks()
        self._grouped = [block for block in self.blocks if block.name in _OF_MEANS]
        of_theta = any(block.name == "theta" for block in self._grouped)
        self._control = self._chosen_control() if of_theta and followed else None
        self.bias: BiasBound | None = None
        self._looks = self._last = self._total = 0
        self._ended, self._took = False, 0.0

    def run(self, deadline: float) -> Outcome:
        """Look on until every claim has a verdict and the bound is as tight as was asked for."""
        self.look_on(deadline)
        while not (self.clear and self.excess <= self.subject.settings.tolerance) and self.can(deadline):
            self.look_on(deadline)
        return self.outcome()

    def can(self, deadline: float, ahead: int = 1) -> bool:
        """Whether one look more is allowed, or so many, and ends in time."""
        if self._ended or self._looks + ahead > LOOKS:
            return False
        return self._looks == 0 or self._affordable(_GROWTH**ahead * self._last, deadline, ahead)

    def promise(self, deadline: float) -> float:
        """What `excess` may come down to by all looks that are allowed: but for its errors, half by each."""
        assert self.bias is not None
        looks, last, total = self._looks, self._last, self._total
        while looks < LOOKS and self._affordable(_GROWTH * last, deadline, looks - self._looks + 1):
            looks, last = looks + 1, _GROWTH * last
            total += last
        unit = self.bias.high / self.bias.absolute if self.bias.absolute else 0.0
        now, then = (unit * self.error(draws) for draws in (self._total, total))
        return max(self.excess - now, 0.0) / _GROWTH ** ((looks - self._looks) / 2) + then

    def as_many_as(self, evaluations: float, deadline: float, slower: float) -> int:
        """How many take no more evaluations, nor time, each ``slower`` times an estimate of the last look."""
        allowed = evaluations / self._source.work
        in_time = (deadline - time.monotonic()) / (slower * self._took) * self._last if self._took else 0.0
        return int(max(min(allowed, in_time), 0))

    def look_on(self, deadline: float) -> None:
        """Take one look, four times the last, and what confirms its alarm where it raises one."""
        self._take(_GROWTH * self._last or self.first, screen=True)
        while not self._ended and any(block.test.waiting for block in self.blocks):
            if self.can(deadline):
                self._take(_GROWTH * self._last, screen=True)
            else:
                self._take(self._last, screen=False)
                self._ended = True

    def outcome(self) -> Outcome:
        """What all looks so far tell."""
        assert self.bias is not None
        verdicts = {block.name: _verdict(block, self._total) for block in self.blocks}
        return Outcome(self.blocks, verdicts, self.bias, self._total)

    @property
    def excess(self) -> float:
        """What more draws bring down: the bound, or of a declared bias an interval that is too wide."""
        assert self.bias is not None
        if self.subject.unbiased:
            return self.bias.high
        width = self.bias.high - self.bias.low
        return width if width > _WIDE * self.bias.estimate else 0.0

    @property
    def clear(self) -> bool:
        """Whether every claim has a verdict; for the variance's, which may never have one, a few looks do."""
        settled = {block.name: block.test.settled for block in self.blocks}
        if "variance" not in settled:
            return all(settled.values())
        least = _VARIANCE_LOOKS if settled.pop("variance") else _MOST_VARIANCE_LOOKS
        return all(settled.values()) and self._looks >= least

    @property
    def rejected(self) -> bool:
        """Whether a claim is."""
        return any(block.test.rejection for block in self.blocks)

    def _take(self, n: int, screen: bool) -> None:
        begun = time.monotonic()
        self._look(n, self._looks, screen)
        self._took = time.monotonic() - begun
        self._looks, self._last, self._total = self._looks + 1, n, self._total + n
        self.bias, self._ended = self._bias(), self.rejected

    def _chosen_control(self) -> int | None:
        """Which of the gradients in θ whose mean is known leaves least of the estimate's noise."""
        if self.subject.estimator.deterministic:
            return None
        size = self._source.unlike_data(_OF_A_PILOT)
        drawn = [self.subject.draw_controlled(size) for _ in range(_PILOT_GROUPS)]
        raw = torch.cat([means.theta for means, _ in drawn])
        left = [float(raw.var(0).sum())]
        for which in range(min(len(controls) for _, controls in drawn)):
            left.append(float((raw - torch.stack([controls[which] for _, controls in drawn])).var(0).sum()))
        best = min(range(len(left)), key=left.__getitem__)
        rounding = max(_ALL, _CANCELLED * self.subject.oracle.unit)
        if left[best] <= rounding**2 * left[0] and all(block.name != "phi" for block in self.blocks):
            self._groups = _FEW_GROUPS
        return best - 1 if best else None

    def _look(self, n: int, look: int, screen: bool) -> None:
        means = look < _LOOKS_OF_MEANS or any(
            block.test.waiting or not block.test.settled for block in self._grouped
        )
        for block, one in self.sums(n, look, means):
            if not one.n:
                continue
            block.pooled = block.pooled.pooled(one)
            if block in self.blocks:
                block.test.take(one, screen)

    def sums(self, n: int, look: int, means: bool = True) -> list[tuple[Block, ColumnSums]]:
        """What n estimates of a look add up to: of every claim, and of the gradient in any case.

        Without ``means`` nothing of the claims on means over data.
        """
        blocks = self.blocks if self.bounded in self.blocks else [*self.blocks, self.bounded]
        errors = self.explained.errors(n)
        for block in blocks:
            block.allow(errors)
        sums = [block.test.sums() for block in blocks]
        self.subject.seed("look", look)
        part = _OF_A_GROUP if look < _LOOKS_OF_MEANS else _OF_A_LATE_GROUP
        for chunk, times in self._chunks(n, n // part if means and self._grouped else 0):
            for block, one in zip(blocks, sums, strict=True):
                columns = block.columns(chunk)
                if columns is not None:
                    one.add(columns, times)
        return list(zip(blocks, sums, strict=True))

    def _chunks(self, n: int, grouped: int) -> Iterator[tuple[Chunk, int]]:
        """n estimates some at a time, and means over groups of others, each with how often it counts.

        Without groups where ``grouped``, the estimates in each, is zero.
        """
        if self.subject.estimator.deterministic:
            first, second = (self.subject.draw(1)[0] for _ in range(2))
            if not torch.equal(first.gradient, second.gradient):
                raise EstimatorError("declares deterministic = True, but two calls differ")
            yield Chunk(first, first), n
            if grouped:
                yield Chunk(means=self.subject.draw_means(1)), _GROUPS
            return
        for size in self._source.sizes(n):
            yield Chunk(*self.explained.draw(size)), 1
        size = self._source.unlike_data(grouped)
        for _ in range(self._groups if grouped else 0):
            yield Chunk(means=self.subject.draw_means(size, self._control)), 1

    def _bias(self) -> BiasBound:
        # The bound that is reported is chosen among those of all looks.
        confidence = 1 - (1 - self.subject.settings.confidence) / LOOKS
        pooled = self.bounded.pooled
        error = self.error(pooled.n)
        return bias_of(self.subject.oracle, pooled, confidence, self.subject.typical_norm, error)

    def error(self, draws: int) -> float:
        """What the mean gradient of so many estimates may be off by, beside its noise, as a norm."""
        return self.explained.error(draws)

    def _affordable(self, n: int, deadline: float, ahead: int = 1) -> bool:
        """Whether a look of so many draws, the so many-th from now on, is allowed and ends in time."""
        in_time = time.monotonic() + _GROWTH**ahead * self._took <= deadline
        return in_time and n * self._source.work <= max(self.subject.settings.max_evaluations, _LEAST_WORK)


def _verdict(block: Block, draws: int) -> tuple[bool | None, str]:
    rejection = block.test.rejection
    if rejection is not None:
        return False, block.reason(rejection)
    if not block.test.settled:
        return None, f"the estimates are too skewed for a verdict at {draws:,} draws"
    return True, ""
