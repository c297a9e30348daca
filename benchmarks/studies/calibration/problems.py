"""The problems of the study: costs in one dimension, and a linear-Gaussian VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...problems.linear_gaussian import LinearGaussianVAE
from ...problems.placement import first_batch
from ...problems.protocol import Problem
from ...problems.registry import load_problem
from .cells import LINEAR_GAUSSIAN, Cell

Array = NDArray[np.float64]
_BATCH = 4

#: Costs f and their slopes f', by the name of the problem.
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "quadratic": (lambda z: -(z**2), lambda z: -2 * z),
    "exponential": (lambda z: -np.exp(-(z**2)), lambda z: 2 * z * np.exp(-(z**2))),
    "cosine": (lambda z: -np.cos(z), np.sin),
}


def linear_gaussian() -> tuple[LinearGaussianVAE, torch.Tensor]:
    """The model, and the batch that it is measured on, (4, 3)."""
    problem = load_problem(LINEAR_GAUSSIAN)
    assert isinstance(problem, LinearGaussianVAE)
    return problem, first_batch(problem, _BATCH, seed=0)


def placed(cell: Cell) -> tuple[Problem, torch.Tensor]:
    """A cell's problem, and the batch that it is measured on."""
    if cell.problem in FUNCTIONS:
        return load_problem(cell.problem), torch.zeros(1, 1)
    problem, x = linear_gaussian()
    return cast("Problem", problem), x  # its decoder is a Linear, which the protocol's Module does not say
