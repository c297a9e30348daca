"""The largest eigenvalue of a covariance in φ-space that is known through η-space alone."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from ..linalg import in_float64, times
from ..problems.protocol import Problem
from .products import pull_back, push_forward

_POWER_ITERATIONS = 50


def largest_eigenvalue(problem: Problem, x: Tensor, covariance: Float64[Tensor, "B P P"]) -> float:
    """Largest eigenvalue of (1/B²) Σ_i J_iᵀ A_i J_i, by power iteration."""
    batch = len(covariance)
    generator = torch.Generator().manual_seed(0)
    eta = torch.randn(covariance.shape[:2], generator=generator, dtype=torch.float64).to(covariance)
    value = 0.0
    for _ in range(_POWER_ITERATIONS):
        direction = pull_back(problem.encoder, x, eta)
        norm = sum(float(in_float64(g).square().sum()) for g in direction.values()) ** 0.5
        if norm == 0:
            return 0.0
        unit = {name: g / norm for name, g in direction.items()}
        eta = in_float64(push_forward(problem.encoder, x, unit))
        weighted = times(covariance, eta)
        previous, value = value, float((eta * weighted).sum()) / batch**2
        eta = weighted
        if abs(value - previous) <= 1e-3 * value:
            break
    return value
