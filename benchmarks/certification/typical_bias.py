"""How large a declared bias is on a small problem, before anyone asks for a certificate."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.support import refusal
from ..gradients import seeded
from ..oracles.references import compared_objective
from ..problems.placement import default_batch_size, first_batch, place
from ..problems.protocol import Problem
from ..problems.registry import load_problem
from ..rows.certificate_checks import BiasBound
from .blocks import exact_bias
from .cell import certify_cell
from .corners import Corner
from .levels import Settings
from .oracle import Oracle, solve
from .points import points_of
from .subject import warmed

_PROBLEMS = (
    "small-vae[posterior=bernoulli]",
    "small-vae[posterior=categorical]",
    "linear-gaussian[latent_dim=1,data_dim=2]",
)
_POINTS = ("initial", "middle", "near-optimal")
_SETTINGS = Settings(tolerance=1.0, confirm_level=1e-3, max_evaluations=2**16)
_SIZES_TRIED = 8


class TypicalBias(NamedTuple):
    """Relative biases at three points of a problem.

    Attributes:
        problem: its name.
        num_samples: S.
        objective: whose gradient the mean is held against; the ELBO's for relaxed latents.
        biases: measured or exact.
    """

    problem: str
    num_samples: int
    objective: str
    biases: list[BiasBound]


def typical_bias(build: Callable[[], Estimator]) -> TypicalBias | str:
    """On the first problem of a few that the estimator supports, at the smallest S from 2 on; or why not.

    Args:
        build: makes the estimator anew.
    """
    estimator = build()
    objective = compared_objective(estimator.objective)
    for name in _PROBLEMS:
        problem, x, points = _points(name)
        q, target = problem.posterior(points["initial"]), problem.target(x)
        least = max(2, estimator.min_samples)
        tried = range(least, least + _SIZES_TRIED)
        size = next((s for s in tried if refusal(estimator, q, target, s) is None), None)
        if size is None:
            continue
        answers = [solve(problem, point, x, points[point], objective, size) for point in _POINTS]
        oracles = [answer for answer in answers if not isinstance(answer, str)]
        if not oracles:
            return str(answers[0])
        typical = (sum(oracle.norm**2 for oracle in oracles) / len(oracles)) ** 0.5
        found = [bias for oracle in oracles for bias in _biases(build, oracle, size, typical)]
        return TypicalBias(name, size, objective, found) if found else "its estimates there failed"
    return "it supports none of the problems tried"


def _biases(
    build: Callable[[], Estimator], oracle: Oracle, num_samples: int, typical: float
) -> list[BiasBound]:
    """At one point: by the exact mean, or measured; none where that fails."""
    estimator = build().eval()
    mean = oracle.mean(estimator, num_samples)
    if mean is not None:
        return [exact_bias(oracle, mean, typical)]
    claims = oracle.objective == estimator.objective
    corner = Corner(num_samples, len(oracle.eta))
    warm = partial(warmed, build, oracle, num_samples, _SETTINGS.seed)
    checks = certify_cell(warm, oracle, corner, "", typical, _SETTINGS, claims=claims)
    return [] if isinstance(checks, str) else [check.bias for check in checks if check.bias is not None]


@lru_cache(maxsize=len(_PROBLEMS))
def _points(name: str) -> tuple[Problem, Tensor, dict[str, Tensor]]:
    with seeded(0, torch.device("cpu")):
        problem = place(load_problem(name), dtype=torch.float64)
        x = first_batch(problem, default_batch_size(problem), 0)
        return problem, x, points_of(problem, x, 0)
