"""Problems at a point of one training trajectory that all estimators share, to be compared there."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch

from ..estimators.errors import UsageError
from ..estimators.registry import create
from .convergence import train
from .placement import default_batch_size, first_batch
from .problems.protocol import Problem
from .problems.registry import load_problem

_LEARNING_RATE = 3e-3
_TEACHERS = (("reparameterization", 1), ("leave-one-out", 4))


def problem_at(specification: str, step: int, seed: int, folder: Path | None) -> Problem:
    """The problem after ``step`` training steps with the first teacher that supports it.

    The teacher is reparameterization, or leave-one-out with S = 4 where the posterior has no rsample;
    Adam at 3e-3, the problem's default batch size.

    Args:
        specification: of the problem.
        step: 0 for the initialization.
        seed: of the trajectory.
        folder: where checkpoints are kept between processes; None to keep them in memory only.

    Raises:
        UsageError: no teacher supports the problem.
    """
    problem = load_problem(specification)
    if step == 0:
        return problem
    state = _trained_state(specification, step, seed, folder)
    problem.encoder.load_state_dict(state["encoder"])
    problem.decoder.load_state_dict(state["decoder"])
    return problem


@lru_cache(maxsize=32)
def _trained_state(
    specification: str, step: int, seed: int, folder: Path | None
) -> dict[str, dict[str, torch.Tensor]]:
    file = None
    if folder is not None:
        key = hashlib.sha256(f"{specification}|{step}|{seed}".encode()).hexdigest()[:12]
        file = folder / f"{key}.pt"
        if file.exists():
            return torch.load(file, weights_only=True)
    problem = load_problem(specification)
    teacher, num_samples = _teacher(problem, specification)
    trained = train(
        problem,
        teacher,
        steps=step,
        num_samples=num_samples,
        learning_rate=_LEARNING_RATE,
        evaluate_every=step,
        importance_samples=0,
        seed=seed,
    ).problem
    state = {"encoder": trained.encoder.state_dict(), "decoder": trained.decoder.state_dict()}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        torch.save(state, temporary)
        temporary.replace(file)
    return state


def _teacher(problem: Problem, specification: str) -> tuple[str, int]:
    x = first_batch(problem, default_batch_size(problem), 0)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    for name, num_samples in _TEACHERS:
        if create(name).supports(q, target, num_samples) is None:
            return name, num_samples
    raise UsageError(f"{specification}: no estimator to train a checkpoint with")
