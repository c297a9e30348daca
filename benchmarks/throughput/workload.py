"""One case of the throughput benchmark, ready to be timed."""

from __future__ import annotations

import copy
import itertools
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..gradients import prepare, seeded
from ..problems.placement import (
    check_device,
    check_dtype,
    default_batch_size,
    device_of,
    dtype_of,
    duplicate,
    first_batch,
    move,
    to_encoder,
)
from ..problems.protocol import Problem
from ..problems.registry import load_problem
from .modes import CompiledStep, GraphedStep, check_mode, make_step
from .peak_memory import peak_memory

_BATCHES = 8


class Workload:
    """Copies of a problem and an estimator on the device, their data there too, the step warmed up.

    Args: see `elbograd.benchmarks.throughput.measure.measure_throughput`.

    Attributes:
        case: the case, as columns of the results.
        warmup_seconds: from the first eager step to the last warm-up step, compilation included.
        note: a warning for the results, or "".

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator breaks the protocol.
    """

    def __init__(
        self,
        problem: Problem | str,
        estimator: Estimator | str,
        x: Tensor | None = None,
        *,
        num_samples: int = 1,
        batch_size: int | None = None,
        mode: str = "eager",
        seed: int = 0,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> None:
        problem = load_problem(problem) if isinstance(problem, str) else duplicate(problem)
        estimator = create(estimator) if isinstance(estimator, str) else copy.deepcopy(estimator)
        if num_samples < 1:
            raise UsageError(f"num_samples={num_samples} is not a positive integer")
        self.device = device_of(problem) if device is None else check_device(device)
        check_mode(mode, self.device)
        wanted = check_dtype(dtype) if isinstance(dtype, str) else dtype
        move(problem, self.device, wanted or dtype_of(problem))
        self.seed = seed
        with self.active():
            batches = _batches(problem, x, batch_size, seed)
            prepare(problem, estimator, batches[0], num_samples, warmup=0)
            estimator.train()
            start = time.perf_counter()
            self._step = make_step(problem, estimator, num_samples, mode, batches)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.warmup_seconds = time.perf_counter() - start
        self._next_batch = itertools.cycle(batches).__next__
        self._parameters = [
            *problem.encoder.parameters(),
            *problem.decoder.parameters(),
            *estimator.parameters(),
        ]
        self.case: dict[str, Any] = {
            "problem": getattr(problem, "label", "") or type(problem).__name__,
            "estimator": estimator.label,
            "num_samples": num_samples,
            "batch_size": len(batches[0]),
            "latent_dim": getattr(problem, "latent_dim", None),
            "seed": seed,
            "device": str(device or self.device),
            "dtype": str(dtype_of(problem)).removeprefix("torch."),
            "mode": mode,
        }

    def gradients(self) -> None:
        """The gradients of one estimate for the next batch."""
        self._step.gradients(self._next_batch())

    def step(self) -> None:
        """One full training step on the next batch."""
        self._step(self._next_batch())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Where the workload is made and timed: its device current, its draws from its seed."""
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_device, seeded(self.seed, self.device):
            yield

    @property
    def note(self) -> str:
        breaks = self._step.graph_breaks if isinstance(self._step, CompiledStep) else 0
        compiled = f"torch.compile broke the graph of the step {breaks} times" if breaks else ""
        return "; ".join(filter(None, (compiled, self._memory[1])))

    @property
    def peak_memory(self) -> int | None:
        """Bytes allocated at the peak of one step above what was allocated before it; None if not known."""
        return self._memory[0]

    @cached_property
    def _memory(self) -> tuple[int | None, str]:
        if isinstance(self._step, GraphedStep):
            return self._step.peak_memory, ""
        # The gradients of the step before would otherwise be released, uncounted, during this one.
        for parameter in self._parameters:
            parameter.grad = None
        with self.active():
            return peak_memory(self.step, self.device)


def environment(device: str) -> dict[str, Any]:
    """What a rate depends on beside the case: the processor, torch, the threads."""
    place = check_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else _processor()
    return {"device_name": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return next(iter(names), "") or platform.processor() or platform.machine()


def _batches(problem: Problem, x: Tensor | None, batch_size: int | None, seed: int) -> list[Tensor]:
    """The batches to cycle through, resident on the device: ``x`` alone, or several of the training data."""
    if x is not None:
        if batch_size not in (None, len(x)):
            raise UsageError(f"batch_size={batch_size} is not the {len(x)} data of x")
        return [to_encoder(problem, x)]
    size = default_batch_size(problem) if batch_size is None else batch_size
    return [first_batch(problem, size, seed + index) for index in range(_BATCHES)]
