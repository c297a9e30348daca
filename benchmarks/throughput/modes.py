"""The ways to run a training step: eager, compiled, replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.text import one_line
from ..gradients import check_estimate
from ..problems.arguments import shown
from ..problems.protocol import Problem
from ..training.step import TrainingStep
from .compiled import WARMUP_STEPS, CompiledStep
from .graphed import GraphedStep, beside_default_stream

MODES = ("eager", "compiled", "cuda-graph")


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
    if not isinstance(mode, str) or mode not in MODES:
        raise UsageError(f"unknown mode {shown(mode)}: choose from {', '.join(MODES)}")
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
    aside = beside_default_stream(device) if mode == "cuda-graph" else nullcontext()
    with aside, _checked(estimator, len(batches[0])):
        for x in islice(cycle(batches), WARMUP_STEPS):
            eager(x)
    if mode == "eager":
        return eager
    try:
        if mode == "cuda-graph":
            return GraphedStep(eager, batches[0])
        return CompiledStep(problem, estimator, optimizers, num_samples).warm_up(batches)
    except Exception as error:  # a compiler or a capture may fail in any way
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"mode {mode} cannot be used here: {reason}") from error


def _checked(estimator: Estimator, data: int) -> RemovableHandle:
    """Inside, each estimate for a batch of so many data is held to the protocol before it is used."""
    return estimator.register_forward_hook(
        lambda _, __, estimate: check_estimate(estimate, torch.Size((data,)))
    )


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
