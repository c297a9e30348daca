"""How many training steps and how many gradients a second, and in how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ..problems.arguments import check_positive
from ..problems.as_trained import as_trained
from ..problems.protocol import Problem
from .case import ThroughputCase
from .clock import time_in_turn
from .rows import Rate, Timings, rows_from_json
from .suite import run_throughput
from .workload import Workload

__all__ = [
    "ThroughputCase",
    "ThroughputResult",
    "measure_throughput",
    "rows_from_json",
    "run_throughput",
]


@dataclass(frozen=True)
class ThroughputResult:
    """What `measure_throughput` found.

    Attributes:
        timings: the seconds of every block, and the rest of what was measured.
    """

    timings: Timings

    @property
    def steps_per_second(self) -> Rate:
        """Full training steps: gradients, Adam for φ, θ and the estimator's parameters, `update`."""
        return Rate.of(self.timings.seconds["steps_per_second"])

    @property
    def gradients_per_second(self) -> Rate:
        """Gradients of a batch for φ, θ and the estimator's parameters, without the optimizer."""
        return Rate.of(self.timings.seconds["gradients_per_second"])

    @property
    def peak_memory(self) -> int | None:
        """Bytes allocated at the peak of one step above what was there before it; None when not known."""
        return self.timings.peak_memory

    @property
    def warmup_seconds(self) -> float:
        """Seconds spent before anything was timed, compilation and capture included."""
        return self.timings.warmup_seconds or 0.0

    def rows(self) -> list[dict[str, Any]]:
        """The long rows of the results."""
        return self.timings.rows()


@as_trained()
def measure_throughput(
    problem: Problem | str,
    estimator: Estimator | str,
    x: Tensor | None = None,
    *,
    num_samples: int = 1,
    batch_size: int | None = None,
    seconds: float = 1.0,
    mode: str = "eager",
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> ThroughputResult:
    """Time full training steps, and gradients alone, of a copy of a problem with a copy of an estimator.

    A gradient is that of the batch mean, for φ, θ and the estimator's own parameters. Steps and
    gradients are timed in turn, in blocks of at least 2 ms between two synchronizations of the device,
    with the garbage collector off, over several batches that lie on the device, at another eta each call.
    The median of the blocks is reported; its interval knows that a block is like the one before. What varies
    from process to process it does not hold. The learning rate is 0, so that the step costs the same
    throughout.

    Args:
        problem: a Problem, or its specification; left unchanged.
        estimator: an Estimator, or its specification; left unchanged.
        x: the batch (B, ...) to use; None for eight batches of the training data, in turn.
        num_samples: S.
        batch_size: B; None for the problem's default.
        seconds: of timing for the steps, and again for the gradients; six blocks each at the least, and up
            to three times the seconds while an interval is wider than ±10%.
        mode: "eager", "compiled" (torch.compile of forward and backward pass) or "cuda-graph" (the
            whole step captured once and replayed).
        seed: of data order and draws.
        device: where to train; None for where the problem is.
        dtype: floating-point type; None for the problem's.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported here.
        EstimatorError: the estimator broke the protocol.
    """
    check_positive("number", seconds=seconds)
    workload = Workload(
        problem,
        estimator,
        x,
        num_samples=num_samples,
        batch_size=batch_size,
        mode=mode,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    gpu = workload.device.type == "cuda"
    with workload.active():
        steps, gradients = time_in_turn([workload.step, workload.gradients], seconds, events=gpu)
    return ThroughputResult(
        Timings(
            case={"case": "", **workload.case},
            seconds={
                "steps_per_second": [block.wall for block in steps],
                "gradients_per_second": [block.wall for block in gradients],
            },
            gpu_seconds=[block.gpu for block in steps if block.gpu is not None],
            warmup_seconds=workload.warmup_seconds,
            peak_memory=workload.peak_memory,
            note=workload.note,
        )
    )
