"""Containing code of others: what it may change for all that follows is put back.

torch is imported by what needs it alone: plugins are listed and named without it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def contained() -> Iterator[None]:
    """Around code of others, which may set torch's default type or go to another folder for all that follows.

    Afterwards both are as before: an estimator's numbers may not depend on which others share its process.
    """
    folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY)) if os.name == "posix" else os.getcwd()
    torch = sys.modules.get("torch")
    dtype = None if torch is None else torch.get_default_dtype()
    try:
        yield
    finally:
        os.chdir(folder)
        if isinstance(folder, int):
            os.close(folder)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_default_dtype(dtype or torch.float32)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """A seeded random state and a single thread; those of the caller, and its default dtype, come back.

    One thread is faster on tensors this small, and leaves the numbers the same on every machine.
    """
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


class Draws:
    """Random numbers of one's own for code of others, which asks the global generators for them.

    Inside `scope` PyTorch's generators (of the CPU and of every CUDA device), NumPy's global one and Python's
    go on from where the last scope left them, at first from the seed; outside they are as they were. So a
    generator function draws the same whatever runs between two of its steps.

    Args:
        seed: as of ``torch.manual_seed(seed)``, ``numpy.random.seed(seed)`` (of its lower 32 bits) and
            ``random.seed(seed)``.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[Any, ...] | None = None

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Draw from here."""
        before = _states()
        if self._states is None:
            seed_everything(self._seed)
        else:
            _restore(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _restore(before)


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Around code of others that draws from global generators: all of them seeded, and restored after."""
    with Draws(seed).scope():
        yield


def seed_everything(seed: int) -> None:
    """Seed the generators of PyTorch, NumPy's global one and Python's."""
    import numpy
    import torch

    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:  # `torch.manual_seed` takes milliseconds, and would seed a device that comes later
        torch.default_generator.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


def _states() -> tuple[Any, ...]:
    import numpy
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda, numpy.random.get_state(), random.getstate()


def _restore(states: tuple[Any, ...]) -> None:
    import numpy
    import torch

    cpu, cuda, of_numpy, of_python = states
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    numpy.random.set_state(of_numpy)
    random.setstate(of_python)
