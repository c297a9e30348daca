"""How many more training steps a second runs take at once than one after the other, on one thread."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ...gradients import seeded
from ...problems.as_trained import as_trained
from ...statistics.intervals import median_interval
from ...training.begin import Begun, Planned, batches_of_all, begin_all
from ...training.pilot import STEPS, stack_of
from ...training.stack import Stack, stacked_batches

RUNS = (1, 4, 16, 32, 64)
_MODEL = "vae"
#: Of which the last differentiates itself, and so is stacked in the slower way.
CASES = (("reparameterization", 1), ("leave-one-out", 4), ("linearized-hessian", 1))
_CALLS = 30  # steps of one run alone in a round; together about as many of all
_RATE = 1e-3


@dataclass(frozen=True)
class ManyRate:
    """Seconds of a step of one run, with the data it is shown: alone, and as its share of a step of all.

    Attributes:
        runs: R, each of a seed of its own.
        alone: median.
        stacked: median.
        ratio: median over rounds of alone / stacked, with its 95% interval from order statistics.
        processes: of what two processes gain over one, each with runs of its own one after the other.
    """

    estimator: str
    num_samples: int
    runs: int
    alone: float
    stacked: float
    ratio: tuple[float, float, float]
    processes: tuple[float, float, float]


def many_rates(rounds: int, runs: tuple[int, ...] = RUNS) -> Iterator[ManyRate]:
    """Of each case; in every round one run alone, all at once, and two processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, num_samples in CASES:
            spawning = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, spawning, _prepare, (name, num_samples)) as two:
                for number in runs:
                    yield _rate(name, num_samples, number, two, rounds)
    finally:
        torch.set_num_threads(threads)


@as_trained()
def _rate(name: str, num_samples: int, runs: int, two: ProcessPoolExecutor, rounds: int) -> ManyRate:
    begun = _begun(name, num_samples, runs)
    (alone,) = _begun(name, num_samples, 1)
    calls = max(2, _CALLS // runs)
    pairs, gains = [], []
    with seeded(0, alone.first.device):
        batches = batches_of_all(begun)
        stack = stack_of(begun, [_RATE] * runs, "adam", list(itertools.islice(batches, STEPS)))
        for _ in range(rounds + 1):
            one = _seconds(lambda: _take(alone, _CALLS)) / _CALLS
            all_of_them = _seconds(lambda: _take_stacked(stack, batches, calls)) / (calls * runs)
            both = _seconds(lambda: list(two.map(_take_prepared, (_CALLS, _CALLS)))) / (2 * _CALLS)
            pairs.append((one, all_of_them))
            gains.append(one / both)
    pairs, gains = pairs[1:], gains[1:]  # the first warms up
    singles, shares = zip(*pairs, strict=True)
    ratio = median_interval([one / share for one, share in pairs])
    return ManyRate(name, num_samples, runs, median(singles), median(shares), ratio, median_interval(gains))


def _begun(name: str, num_samples: int, runs: int) -> list[Begun]:
    settings = {"num_samples": num_samples, "batch_size": None, "device": None, "dtype": None}
    return begin_all([Planned(_MODEL, seed, _RATE) for seed in range(runs)], name, "adam", settings)


def _take(begun: Begun, steps: int) -> None:
    for x in itertools.islice(begun.batches, steps):
        begun.run.training_step(x)


def _take_stacked(stack: Stack, batches: Iterator[list[Tensor]], steps: int) -> None:
    for batch in itertools.islice(batches, steps):
        stack.step(stacked_batches(batch))


_PREPARED: list[Begun] = []  # of a process of its own


def _prepare(name: str, num_samples: int) -> None:
    torch.set_num_threads(1)
    _PREPARED.extend(_begun(name, num_samples, 1))


def _take_prepared(steps: int) -> None:
    _take(_PREPARED[0], steps)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
