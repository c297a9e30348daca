"""Containing code of others: what it may change for all that follows is put back.

torch is imported by what needs it alone: plugins are listed and named without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
