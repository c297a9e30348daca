"""The throughput benchmark as pytest-benchmark tests; `run_throughput` collects them, case by case."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .clock import MIN_BLOCKS, calls_in_block, synchronized, time_block, time_in_turn

if TYPE_CHECKING:
    from .plugin import Turn

__all__ = ["test_gradient", "test_training_step"]

# The timer reads the clock once the device is idle: before and after each block of calls.
timed = pytest.mark.benchmark(timer=synchronized, disable_gc=True)


@timed
def test_training_step(benchmark: BenchmarkFixture, turn: Turn) -> None:
    """Gradients, Adam for φ, θ and the estimator's own parameters, and `Estimator.update`."""
    workload = turn.workload()
    _time(benchmark, turn, "training step", workload.step)
    if turn.first and workload.device.type == "cuda":
        with workload.active():
            blocks = time_in_turn([workload.step], 0, events=True)[0]
        benchmark.extra_info["gpu_seconds"] = [block.gpu for block in blocks]


@timed
def test_gradient(benchmark: BenchmarkFixture, turn: Turn) -> None:
    """The gradients of one estimate, without the optimizer."""
    _time(benchmark, turn, "gradient", turn.workload().gradients)


def _time(benchmark: BenchmarkFixture, turn: Turn, group: str, run: Callable[[], object]) -> None:
    """Rounds of blocks of at least 2 ms for this turn's share of the seconds; more in the last if noisy."""
    benchmark.name, benchmark.group = turn.label, turn.group(group)
    with turn.workload().active():
        calls = calls_in_block(run)
        seconds = calls * time_block(run, calls).wall
        rounds = max(math.ceil(MIN_BLOCKS / turn.of), int(turn.seconds / seconds))
        benchmark.pedantic(run, rounds=turn.with_more(group, rounds), iterations=calls)
    if benchmark.stats is not None:
        turn.keep(group, benchmark.stats.stats.data)
    benchmark.extra_info.update(turn.describe(group))
