"""Seconds of one training-step gradient, by two instances of an estimator in turn: an A/A control."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

from torch import Tensor

from ...estimators.base import Estimator
from ..problems.protocol import Problem
from ..throughput.clock import calls_in_block, gc_paused, synchronized
from ..throughput.fresh import FreshEta
from ..training.step import TrainingStep

_WARM_CALLS = 2  # gradients before the first that is timed
_RENEWED = 4  # turns after which both instances are made anew, elsewhere in memory


class Timer:
    """Times two equal instances of an estimator, in random order; every call sees another eta.

    What two instances of the same code differ by is what two estimators may differ by without any
    difference between them: where they lie in memory, what ran before, what else the machine does.

    Args:
        problem: its gradients are used and cleared; its encoder is put back after each block.
        estimator: prepared; copies of it are timed.
        x: (B, ...).
        num_samples: S.
        clock: for tests.
    """

    def __init__(
        self,
        problem: Problem,
        estimator: Estimator,
        x: Tensor,
        num_samples: int,
        clock: Callable[[], float] = synchronized,
    ) -> None:
        self._problem, self._estimator, self._x, self._num_samples = problem, estimator, x, num_samples
        self._clock = clock
        self._order = random.Random(0)  # apart from all draws
        self._steps: list[TrainingStep] = []
        self._calls = self._turns = 0

    def turn(self) -> tuple[float, float]:
        """Seconds a call of a block of each instance, at least 2 ms long."""
        if self._turns % _RENEWED == 0:
            self._steps = [self._another(), self._another()]
        self._turns += 1
        fresh = FreshEta(self._problem, self._x)
        try:
            seconds = [0.0, 0.0]
            for k in self._order.sample((0, 1), 2):
                seconds[k] = self._block(self._steps[k], fresh)
            return seconds[0], seconds[1]
        finally:
            fresh.restore()
            for side in (self._problem.encoder, self._problem.decoder):
                for parameter in side.parameters():
                    parameter.grad = None

    def _block(self, step: TrainingStep, fresh: FreshEta) -> float:
        def run() -> None:
            fresh.next()
            step.gradients(self._x)

        if not self._calls:
            for _ in range(_WARM_CALLS):
                run()
            self._calls = calls_in_block(run, clock=self._clock)
        spent = 0.0
        with gc_paused():
            for _ in range(self._calls):
                fresh.next()
                before = self._clock()
                step.gradients(self._x)
                spent += self._clock() - before
        return spent / self._calls

    def _another(self) -> TrainingStep:
        try:
            estimator = copy.deepcopy(self._estimator)
        except Exception:  # of what holds graphs or handles there is but one
            estimator = self._estimator
        return TrainingStep(self._problem, estimator.train(), [], self._num_samples)


def control(turns: list[tuple[float, float]]) -> float | None:
    """The logarithm of the ratio that two instances differ by, the median over turns; None without any."""
    ratios = sorted(math.log(a / b) for a, b in turns if a > 0 and b > 0)
    return ratios[len(ratios) // 2] if ratios else None
