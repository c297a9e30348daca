"""What one gradient costs: seconds of a training step's gradient on this machine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...estimators.base import Estimator
from ..problems.protocol import Problem
from ..statistics.timings import timing_interval
from ..training.step import TrainingStep
from .clock import MIN_BLOCKS, synchronized
from .fresh import FreshEta

_BUDGET = 0.5  # seconds
_WARMUP = 3


def seconds_per_gradient(
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    *,
    clock: Callable[[], float] = synchronized,
) -> tuple[float, float, float, int]:
    """Median seconds of one gradient of a training step (φ, θ and own parameters), its 95% interval, and n.

    Every call sees another eta, and the interval knows that a timing is like the one before.

    Args:
        problem: its parameters' ``.grad`` is used and cleared; what is moved between calls is put back.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        clock: for tests.
    """
    step = TrainingStep(problem, estimator, [], num_samples)
    times: list[float] = []
    fresh = FreshEta(problem, x)
    try:
        for _ in range(_WARMUP):
            fresh.next()
            step.gradients(x)
        started = clock()
        while len(times) < MIN_BLOCKS or clock() - started < _BUDGET:
            fresh.next()
            before = clock()
            step.gradients(x)
            times.append(clock() - before)
    finally:
        fresh.restore()
        for parameter in (*step.phi, *step.theta, *step.own):
            parameter.grad = None
    return *timing_interval(times), len(times)
