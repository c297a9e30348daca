"""From what a user gives to what is measured: a problem in its place, its batch, an estimator of one's own.

Every measurement begins here, so that what one of them answers with a line, all do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create_under
from .arguments import checked_seed, optional_counts, shown
from .checks import attribute, check_problem
from .copying import deep_copy
from .fingerprint import of_batch, of_weights
from .placement import default_batch_size, dtype_of, first_batch, place, to_encoder
from .protocol import Problem
from .registry import load_under


def placed(
    problem: Problem | str,
    x: Tensor | None = None,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> tuple[Problem, Tensor]:
    """A problem where it is to be measured, and the batch it is to be shown there.

    Args:
        problem: a Problem, or its specification; never changed, a copy is moved.
        x: (B, ...); None for the first training batch under ``seed``.
        batch_size: B when x is None; None for the problem's default.
        seed: of the batch, and of what a specification's code draws while it makes the problem.
        device: None for where the problem is.
        dtype: floating-point type; None for the problem's.

    Raises:
        UsageError: in one line, which of these is wrong.
    """
    seed = checked_seed(seed)
    problem = resolve_problem(problem, seed)
    _check_data(x)
    (batch_size,) = optional_counts(batch_size=batch_size)
    problem = place(problem, device=device, dtype=dtype)
    if x is None:
        x = first_batch(problem, default_batch_size(problem) if batch_size is None else batch_size, seed)
    elif batch_size not in (None, len(x)):
        raise UsageError(f"batch_size={batch_size} is not the {len(x)} data of x")
    return problem, to_encoder(problem, x)


def _check_data(x: object) -> None:
    """Raise UsageError unless x is None or a tensor of data."""
    if x is None:
        return
    if not isinstance(x, Tensor):
        raise UsageError(f"x must be a tensor (B, ...) of at least one datum, not {shown(x)}")
    if x.dim() == 0 or x.numel() == 0:
        raise UsageError(f"x must be a tensor (B, ...) of at least one datum, not of shape {tuple(x.shape)}")
    if x.is_complex() or x.is_quantized or x.is_meta or x.is_nested:
        raise UsageError(f"x must be a tensor of real numbers or integers, not {shown(x.dtype)}")


def resolve_problem(given: Problem | str, seed: int = 0) -> Problem:
    """The problem that was given, or that a specification names, made under a seed; held to the protocol.

    Raises:
        UsageError: there is none of that name, or it is no problem.
    """
    problem = load_under(seed, given) if isinstance(given, str) else given
    check_problem(problem)
    return problem


def resolve_estimator(given: Estimator | str, seed: int = 0) -> Estimator:
    """The estimator that a specification names, made under a seed, or a copy of the one that was given.

    Raises:
        UsageError: there is none of that name, or it is no estimator, or cannot be copied.
    """
    if isinstance(given, str):
        return create_under(seed, given)
    if not isinstance(given, Estimator):
        raise UsageError(f"{shown(given)} is not an Estimator: give an instance or its specification")
    return deep_copy(given)


def label_of(problem: Problem) -> str:
    """What results call a problem: its label, or its type."""
    return str(attribute(problem, "label", "")) or type(problem).__name__


def columns(problem: Problem, x: Tensor) -> dict[str, Any]:
    """What rows of results say of a placed problem and its batch x (B, ...)."""
    return {
        "problem": label_of(problem),
        "batch_size": len(x),
        "latent_dim": attribute(problem, "latent_dim", None),
        "device": str(x.device),
        "dtype": str(dtype_of(problem)).removeprefix("torch."),
        "weights": of_weights(problem),
        "batch": of_batch(x),
    }
