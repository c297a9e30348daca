"""The ways to run a training step: eager, compiled, replayed from a CUDA graph."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...estimators.base import Estimate, Estimator
from ...estimators.errors import UsageError
from ...estimators.text import one_line
from ..gradients import check_estimate
from ..problems.protocol import Problem
from ..training.step import TrainingStep, estimate_gradient

MODES = ("eager", "compiled", "cuda-graph")
_WARMUP_STEPS = 3  # as torch.cuda.make_graphed_callables; the second compiled call is the first fast one
_MAX_WARMUP_STEPS = 20  # torch.compile gives up on a piece of code after 8 versions of it


class Step(Protocol):
    """What is timed: the gradients alone, or all of a training step."""

    def gradients(self, x: Tensor) -> object:
        """Fill ``.grad`` of every parameter from one estimate for a batch x (B, ...)."""
        ...

    def __call__(self, x: Tensor) -> object:
        """Take one full training step on a batch x (B, ...)."""
        ...


def check_mode(mode: str, device: torch.device) -> str:
    """``mode`` itself.

    Raises:
        UsageError: an unknown mode, or a CUDA graph where there is no CUDA device.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}: choose from {', '.join(MODES)}")
    if mode == "cuda-graph" and device.type != "cuda":
        raise UsageError(f"mode cuda-graph needs a cuda device, not {device}: choose eager or compiled")
    return mode


def make_step(
    problem: Problem, estimator: Estimator, num_samples: int, mode: str, batches: Sequence[Tensor]
) -> Step:
    """Make a training step in ``mode``, compiled or captured and warmed up.

    Some eager steps come first in every mode, so that a fault of the estimator shows as itself.

    Args:
        problem: trained in place, where it is.
        estimator: already shown the problem; trained in place.
        num_samples: S.
        mode: one of `MODES`.
        batches: what the step will see, x (B, ...) each, all of one shape.

    Raises:
        UsageError: the mode cannot be had here, in one line.
        EstimatorError: the estimator breaks the protocol.
    """
    device = batches[0].device
    check_mode(mode, device)
    optimizers = _optimizers(problem, estimator, capturable=mode == "cuda-graph")
    eager = TrainingStep(problem, estimator, optimizers, num_samples)
    with _beside_default_stream(device) if mode == "cuda-graph" else nullcontext():
        for x in _cycle(batches, _WARMUP_STEPS):
            check_estimate(eager(x), torch.Size((len(x),)))
    if mode == "eager":
        return eager
    try:
        if mode == "cuda-graph":
            return GraphedStep(eager, batches[0])
        return CompiledStep(problem, estimator, optimizers, num_samples).warm_up(batches)
    except Exception as error:  # a compiler or a capture may fail in any way
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"mode {mode} cannot be used here: {reason}") from error


class CompiledStep(TrainingStep):
    """A training step whose forward and backward passes go through `torch.compile`; Adam stays eager.

    The two passes are traced into one graph where the estimator allows it. Where it does not, the graph
    breaks, and what is between the breaks is compiled.

    Attributes:
        graph_breaks: how often it broke.
    """

    graph_breaks = 0

    def __init__(
        self,
        problem: Problem,
        estimator: Estimator,
        optimizers: Iterable[torch.optim.Optimizer],
        num_samples: int,
    ) -> None:
        super().__init__(problem, estimator, optimizers, num_samples)
        self._differentiate = torch.compile(_with_own_cache(self._estimate_and_gradients), dynamic=False)

    def gradients(self, x: Tensor) -> Estimate:
        estimate: Estimate
        estimate, *gradients = self._differentiate(x)
        for parameters, values in zip((self.phi, self.theta, self.own), gradients, strict=True):
            for parameter, gradient in zip(parameters, values, strict=True):
                parameter.grad = gradient
        return estimate

    def warm_up(self, batches: Sequence[Tensor]) -> CompiledStep:
        """Compile, by running until a step compiles nothing new; pieces of a broken graph take a while."""
        from torch._dynamo.utils import counters

        before = sum(counters["graph_break"].values())
        with _one_graph():
            for done, x in enumerate(_cycle(batches, _MAX_WARMUP_STEPS), start=1):
                compiled = counters["stats"]["unique_graphs"]
                self(x)
                if done >= _WARMUP_STEPS and counters["stats"]["unique_graphs"] == compiled:
                    break
        self.graph_breaks = sum(counters["graph_break"].values()) - before
        return self

    def _estimate_and_gradients(self, x: Tensor) -> tuple[Estimate, Any, Any, Any]:
        """The estimate, detached, and the gradients for φ, θ and the estimator's own parameters."""
        estimate = estimate_gradient(self.problem, self.estimator, x, self.num_samples)
        of_own = _gradients(estimate.aux_loss, self.own)
        if estimate.surrogate is estimate.value:
            both = _gradients(-estimate.value, [*self.phi, *self.theta])
            of_phi, of_theta = both[: len(self.phi)], both[len(self.phi) :]
        else:
            of_phi = _gradients(-estimate.surrogate, self.phi)
            of_theta = _gradients(-estimate.value, self.theta)
        aux_loss = None if estimate.aux_loss is None else estimate.aux_loss.detach()
        detached = Estimate(estimate.surrogate.detach(), estimate.value.detach(), aux_loss, estimate.info)
        return detached, of_phi, of_theta, of_own


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


def _optimizers(problem: Problem, estimator: Estimator, *, capturable: bool) -> list[torch.optim.Optimizer]:
    """Adam for φ and θ, and for the estimator's own parameters.

    The learning rate is 0: the arithmetic is the same, and parameters that stay where they are can
    neither diverge nor drift to where the step costs something else while it is timed.
    """
    model = [*problem.encoder.parameters(), *problem.decoder.parameters()]
    groups = [
        [p for p in dict.fromkeys(group) if p.requires_grad] for group in (model, estimator.parameters())
    ]
    return [torch.optim.Adam(group, lr=0.0, capturable=capturable) for group in groups if group]


def _gradients(loss: Tensor | None, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The gradient of the mean of ``loss`` (*batch); None where it does not reach a parameter."""
    if loss is None or not parameters:
        return [None] * len(parameters)
    # Compiled, passes that share no node in eager mode may share one, so none of them frees it.
    return torch.autograd.grad(loss.mean(), parameters, retain_graph=True, allow_unused=True)


def _with_own_cache(method: Callable[..., Any]) -> Callable[..., Any]:
    """The bound method on a code object of its own.

    torch.compile keeps its cache by code object, and gives up on one that was compiled several times:
    without this the steps of different estimators would share those few times.
    """
    function = method.__func__  # type: ignore[attr-defined]
    own = types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, closure=function.__closure__
    )
    return types.MethodType(own, method.__self__)  # type: ignore[attr-defined]


@contextmanager
def _one_graph() -> Iterator[None]:
    """Inside, torch.compile traces through `torch.autograd.grad`, and no backward pass eats its inputs."""
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch

    with ExitStack() as stack:
        for config, name, value in (
            (dynamo, "trace_autograd_ops", True),
            (functorch, "donated_buffer", False),
        ):
            if hasattr(config, name):
                stack.enter_context(config.patch(**{name: value}))
        yield


@contextmanager
def _beside_default_stream(device: torch.device) -> Iterator[None]:
    """Where warm-up before a capture has to run: autograd remembers the stream it first ran on."""
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


def _cycle(batches: Sequence[Tensor], count: int) -> Iterator[Tensor]:
    for index in range(count):
        yield batches[index % len(batches)]
