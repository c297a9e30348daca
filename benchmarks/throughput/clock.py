"""Timing that waits for the device, in blocks long enough for the timer not to matter."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .noise import MOST, is_noisy

MIN_BLOCK_SECONDS = 2e-3
#: The fewest samples whose range is a 95% interval for their median (1 − 2·2⁻⁶ = 96.9%).
MIN_BLOCKS = 6
_MAX_CALLS = 100_000

Call = Callable[[], object]


@dataclass(frozen=True)
class Seconds:
    """Seconds of one call, the mean over a block: by the wall clock and, on a GPU, by CUDA events."""

    wall: float
    gpu: float | None = None


def synchronized() -> float:
    """`time.perf_counter`, read once the current CUDA device has nothing left to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Inside, the garbage collector does not start by itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def time_block(
    run: Call, calls: int, *, events: bool = False, clock: Callable[[], float] = synchronized
) -> Seconds:
    """Seconds a call, over one block of ``calls`` calls; with ``events`` CUDA events time it as well."""
    start_event, end_event = (_event() if events else None for _ in range(2))
    with gc_paused():
        start = clock()
        if start_event is not None:
            start_event.record()
        for _ in range(calls):
            run()
        if end_event is not None:
            end_event.record()
        wall = clock() - start
    if start_event is None or end_event is None:
        return Seconds(wall / calls)
    return Seconds(wall / calls, start_event.elapsed_time(end_event) / 1e3 / calls)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def calls_in_block(run: Call, *, clock: Callable[[], float] = synchronized) -> int:
    """How many calls make a block of at least 2 ms."""
    calls = 1
    while calls < _MAX_CALLS:
        seconds = time_block(run, calls, clock=clock).wall
        if seconds * calls >= MIN_BLOCK_SECONDS:
            break
        # A tenth more than predicted, so that one round of this is mostly enough.
        predicted = math.ceil(1.1 * MIN_BLOCK_SECONDS / seconds) if seconds > 0 else _MAX_CALLS
        calls = min(_MAX_CALLS, max(2 * calls, min(predicted, 100 * calls)))
    return calls


def _noisy(blocks: Sequence[Sequence[Seconds]]) -> bool:
    """Whether any has too wide an interval; looked at now and then, for it costs time itself."""
    n = len(blocks[0])
    return n % max(1, n // 16) != 0 or any(is_noisy([b.wall for b in mine]) for mine in blocks)


def time_in_turn(
    runs: Sequence[Call],
    seconds: float,
    *,
    events: bool = False,
    clock: Callable[[], float] = synchronized,
) -> list[list[Seconds]]:
    """Time several callables in turn, a block of each at a time, so that a drifting machine meets all alike.

    Args:
        runs: what is timed; already warmed up.
        seconds: of timing for each, up to three times as many while an interval is wider than ±10%; at
            least 6 blocks of each are timed whatever this says.
        events: use CUDA events too.
        clock: for tests.

    Returns:
        One list of blocks for each of ``runs``.
    """
    calls = [calls_in_block(run, clock=clock) for run in runs]
    blocks: list[list[Seconds]] = [[] for _ in runs]
    start = clock()
    end, last = (start + times * seconds * len(runs) for times in (1.0, MOST))
    while len(blocks[0]) < MIN_BLOCKS or clock() < end or (clock() < last and _noisy(blocks)):
        for run, count, mine in zip(runs, calls, blocks, strict=True):
            mine.append(time_block(run, count, events=events, clock=clock))
    return blocks
