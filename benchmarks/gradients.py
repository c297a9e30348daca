"""Asking an estimator for gradients in η-space, and holding it to its contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..estimators.base import Estimate, Estimator, Target
from ..estimators.errors import EstimatorError, UsageError
from ..estimators.isolation import drawing_from
from .problems.forward_checks import checked_eta, posterior_and_target
from .problems.posterior_checks import distrust
from .problems.protocol import Problem

_WARMUP_STEPS = 500
_WARMUP_LEARNING_RATE = 1e-2


def prepare(problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, warmup: int | None) -> None:
    """Check that the estimator can be used here, let it allocate its state, and warm that up.

    Warm-up draws from q at the current φ, apart from whatever is measured later.

    Args:
        problem: left unchanged.
        estimator: gets its state; ends in eval mode.
        x: (B, ...).
        num_samples: S.
        warmup: steps; None for 500 where there is state to warm, else 0.

    Raises:
        UsageError: the estimator does not support the posterior, the target or S.
        EstimatorError: it breaks the protocol while it is warmed up.
    """
    with torch.enable_grad():  # without, some encoders compute otherwise
        eta = checked_eta(problem, x).detach()
    _, target = make_ready(problem, estimator, x, eta, num_samples)
    if warmup is None:
        warmup = _WARMUP_STEPS if has_moving_state(estimator) else 0
    with frozen(problem.decoder):
        warm_up(problem, estimator, eta, target, num_samples, warmup)
    estimator.eval()


def make_ready(
    problem: Problem, estimator: Estimator, x: Tensor, eta: Tensor, num_samples: int
) -> tuple[Distribution, Target]:
    """Show the estimator the problem at eta (B, P), whereupon it allocates its state; returns q and target.

    Raises:
        UsageError: the estimator does not support the posterior, the target or S; or the problem fails.
    """
    q, target = posterior_and_target(problem, x, eta)
    reason = estimator.supports(q, target, num_samples) or distrust(problem.posterior, eta, target, estimator)
    if reason:
        raise UsageError(f"{estimator.label} cannot be used here: {reason}")
    estimator.init(q, target)
    estimator.to(device=eta.device, dtype=eta.dtype)
    return q, target


def has_moving_state(estimator: Estimator) -> bool:
    """Whether `update` or an optimizer changes what the estimator does."""
    return type(estimator).update is not Estimator.update or any(True for _ in estimator.parameters())


def warm_up(
    problem: Problem, estimator: Estimator, eta: Tensor, target: Target, num_samples: int, steps: int
) -> None:
    """Move the estimator's state for some steps at fixed eta (B, P), which is what it then knows.

    Raises:
        EstimatorError: an estimate breaks the protocol.
    """
    estimator.train()
    own = [p for p in estimator.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(own, lr=_WARMUP_LEARNING_RATE) if own else None
    for _ in range(steps):
        leaf = eta.detach().requires_grad_()
        estimate = estimator(problem.posterior(leaf), target, num_samples)
        check_estimate(estimate, eta.shape[:-1])
        if optimizer is not None and estimate.aux_loss is not None:
            optimizer.zero_grad()
            estimate.aux_loss.mean().backward(inputs=own)
            optimizer.step()
        estimator.update(estimate)


def eta_gradients(
    problem: Problem, estimator: Estimator, target: Target, eta: Tensor, replicates: int, num_samples: int
) -> Tensor:
    """Independent estimates h of every datum's gradient in η-space, (R, B, P), in one call.

    Raises:
        EstimatorError: the estimate breaks the protocol.
    """
    leaf = eta.detach().expand(replicates, *eta.shape).clone().requires_grad_()
    estimate = estimator(problem.posterior(leaf), target, num_samples)
    check_estimate(estimate, leaf.shape[:-1])
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]


def check_estimate(estimate: Estimate, batch_shape: torch.Size) -> None:
    """Hold an estimate to the protocol.

    Raises:
        EstimatorError: not an Estimate, a wrong shape, or a surrogate without a gradient.
    """
    if not isinstance(estimate, Estimate):
        raise EstimatorError(f"forward returned a {type(estimate).__name__}, not an Estimate")
    for name in ("surrogate", "value"):
        tensor = getattr(estimate, name)
        if not isinstance(tensor, Tensor):
            raise EstimatorError(f"{name} is a {type(tensor).__name__}, not a tensor")
        if tensor.shape != batch_shape:
            raise EstimatorError(
                f"{name} has shape {tuple(tensor.shape)}, expected *batch = {tuple(batch_shape)}"
            )
    if not estimate.surrogate.requires_grad:
        raise EstimatorError("surrogate has no gradient: nothing attached to q's parameters is in it")


def count_evaluations(
    problem: Problem, estimator: Estimator, target: Target, eta: Tensor, num_samples: int
) -> int:
    """Evaluations of log p(x|z) a datum in one estimate; 0 where it is integrated in closed form."""
    rows = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal rows
        f = target.log_likelihood(z)
        rows += f.numel()
        return f

    eta_gradients(problem, estimator, replace(target, log_likelihood=counting), eta, 1, num_samples)
    return round(rows / max(1, len(eta)))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, the module's parameters require no gradient; afterwards all is as before."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from ``seed`` inside, on the CPU and on ``device``; leave the global generators as they were.

    NumPy's and Python's too, which a user's model may draw from.

    Two estimators measured under one seed draw the same numbers wherever they draw alike.
    """
    devices = [device] if device.type == "cuda" else []
    with drawing_from(seed), torch.random.fork_rng(devices=devices):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of ``device`` alone: `torch.manual_seed` takes milliseconds."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
