"""A training step replayed from CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..training.step import TrainingStep


class GraphedStep:
    """A training step captured once in CUDA graphs and replayed: no launch costs, no Python.

    Args:
        step: eager, with capturable optimizers, warmed up beside the default stream, on a CUDA device.
        x: (B, ...), the shape of every later batch; each is copied into one buffer before the replay.

    Attributes:
        peak_memory: bytes allocated while the step was captured. Replaying it allocates nothing.

    References:
        torch, CUDA semantics, "Whole-network capture".
    """

    def __init__(self, step: TrainingStep, x: Tensor) -> None:
        self._parameters: list[nn.Parameter] = [*step.phi, *step.theta, *step.own]
        self._x = x.clone()
        self._gradients, _ = self._capture(step.gradients)
        self._step, self.peak_memory = self._capture(step)

    def gradients(self, x: Tensor) -> None:
        """Replay the gradients alone."""
        self._x.copy_(x)
        self._gradients.replay()

    def __call__(self, x: Tensor) -> None:
        """Replay the full step."""
        self._x.copy_(x)
        self._step.replay()

    def _capture(self, run: Callable[[Tensor], object]) -> tuple[torch.cuda.CUDAGraph, int]:
        # Gradients must be allocated inside the capture, so that they lie in the graph's own pool.
        for parameter in self._parameters:
            parameter.grad = None
        device = self._x.device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        graph = torch.cuda.CUDAGraph()
        # Without a stream of its own, a capture would run on the device of the process's first one.
        stream = torch.cuda.Stream(device)
        with torch.cuda.graph(graph, stream=stream):
            run(self._x)
        return graph, torch.cuda.max_memory_allocated(device) - before


@contextmanager
def beside_default_stream(device: torch.device) -> Iterator[None]:
    """Where warm-up before a capture has to run: autograd remembers the stream it first ran on."""
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)
