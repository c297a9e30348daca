"""A training step through `torch.compile`."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimate, Estimator
from ..problems.protocol import Problem
from ..training.step import TrainingStep, estimate_gradient

WARMUP_STEPS = 3  # as torch.cuda.make_graphed_callables; the second compiled call is the first fast one
_MAX_WARMUP_STEPS = 20  # torch.compile gives up on a piece of code after 8 versions of it


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
            for done, x in enumerate(islice(cycle(batches), _MAX_WARMUP_STEPS), start=1):
                compiled = counters["stats"]["unique_graphs"]
                self(x)
                if done >= WARMUP_STEPS and counters["stats"]["unique_graphs"] == compiled:
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
