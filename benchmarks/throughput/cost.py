"""What one gradient costs: seconds of a training step's gradient on this machine."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ..problems.protocol import Problem
from ..statistics.intervals import median_interval
from ..training.step import TrainingStep

_BUDGET = 0.5  # seconds
_LEAST = 5
_WARMUP = 3


def seconds_per_gradient(
    problem: Problem, estimator: Estimator, x: Tensor, num_samples: int
) -> tuple[float, float, float, int]:
    """Median seconds of one gradient of a training step (φ, θ and own parameters), its 95% interval, and n.

    Args:
        problem: its parameters' ``.grad`` is used and cleared.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
    """
    step = TrainingStep(problem, estimator, [], num_samples)
    times: list[float] = []
    for _ in range(_WARMUP):
        step.gradients(x)
    started = time.perf_counter()
    while len(times) < _LEAST or time.perf_counter() - started < _BUDGET:
        _wait(x.device)
        before = time.perf_counter()
        step.gradients(x)
        _wait(x.device)
        times.append(time.perf_counter() - before)
    for parameter in (*step.phi, *step.theta, *step.own):
        parameter.grad = None
    return *median_interval(times), len(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
