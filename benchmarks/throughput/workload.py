"""One case of the throughput benchmark, ready to be timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ..gradients import prepare, seeded
from ..problems.arguments import checked_seed, counts
from ..problems.checks import check_trainable
from ..problems.forward_checks import check_forward
from ..problems.placement import device_of, dtype_of, duplicate, first_batch, move
from ..problems.point import columns, label_of, placed, resolve_estimator
from ..problems.protocol import Problem
from ..seeds import derived
from .compiled import CompiledStep
from .fresh import FreshEta
from .graphed import GraphedStep
from .modes import check_mode, make_step
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
        (num_samples,) = counts(num_samples=num_samples)
        seed = checked_seed(seed)
        estimator = resolve_estimator(estimator, seed)
        problem, first = placed(problem, x, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
        check_trainable(problem)
        self.seed, self.device = seed, device_of(problem)
        check_mode(mode, self.device)
        described = columns(problem, first)
        label, problem = label_of(problem), duplicate(problem)
        move(problem, self.device, dtype_of(problem))  # whatever of it is elsewhere, or of another type
        with self.active():
            check_forward(problem, first)
        with self.active():
            batches = [first] if x is not None else _batches(problem, len(first), seed)
            prepare(problem, estimator, batches[0], num_samples, warmup=0)
            estimator.train()
            start = time.perf_counter()
            self._step = make_step(problem, estimator, num_samples, mode, batches)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.warmup_seconds = time.perf_counter() - start
            self._fresh = FreshEta(problem, batches[0])
        self._next_batch = itertools.cycle(batches).__next__
        self._parameters = [
            *problem.encoder.parameters(),
            *problem.decoder.parameters(),
            *estimator.parameters(),
        ]
        self.case: dict[str, Any] = {
            **described,
            "problem": label,
            "estimator": estimator.label,
            "num_samples": num_samples,
            "seed": seed,
            "device": str(device or self.device),
            "mode": mode,
        }

    def gradients(self) -> None:
        """The gradients of one estimate for the next batch, at another eta than before."""
        self._fresh.next()
        self._step.gradients(self._next_batch())

    def step(self) -> None:
        """One full training step on the next batch, at another eta than before."""
        self._fresh.next()
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


def _batches(problem: Problem, batch_size: int, seed: int) -> list[Tensor]:
    """Several batches of the training data to cycle through, resident on the device."""
    return [first_batch(problem, batch_size, derived(seed, "batch", index)) for index in range(_BATCHES)]
