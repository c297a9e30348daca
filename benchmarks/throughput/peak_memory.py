"""The most memory that tensors take at once during one step."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(step: Callable[[], object], device: torch.device) -> tuple[int | None, str]:
    """Bytes allocated at the peak of ``step``, above what was allocated before it.

    Parameters, optimizer state and data that exist already are not counted; gradients, activations and
    temporaries made by the step are. On CUDA from the caching allocator's statistics; on the CPU from the
    allocation events of `torch.profiler`, which does not see older tensors being released.

    Returns:
        The bytes and "", or None and the reason why they are not known.
    """
    gc.collect()
    if device.type == "cuda":
        return _cuda_peak(step, device), ""
    sizes = _cpu_allocations(step)
    if sizes is None:
        return None, "torch.profiler reports no allocations here, so the peak memory is not known"
    return highest(sizes), ""


def highest(sizes: list[int]) -> int:
    """The largest running sum of allocations (positive) and releases (negative).

    >>> highest([100, 50, -100, 80])
    150
    """
    peak = total = 0
    for size in sizes:
        total += size
        peak = max(peak, total)
    return peak


def _cuda_peak(step: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_allocations(step: Callable[[], object]) -> list[int] | None:
    """Sizes of the CPU allocations and releases of ``step`` in order; None where torch reports none."""
    with _quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        # An allocation of our own tells "reports none" from "made none".
        probe = torch.empty(1)
        del probe
        step()
    results = getattr(getattr(measured, "profiler", None), "kineto_results", None)
    if results is None:
        return None
    events = [
        event
        for event in results.events()
        if event.name() == "[memory]" and event.device_type().name == "CPU"
    ]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())] or None


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep the two lines that some versions of the profiler write to stderr at every use from the user."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silence)
