"""Where estimators are certified over and over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch

from ....estimators.base import Estimator
from ....estimators.errors import UsageError
from ....estimators.plugins.registry import create
from ...certification.corners import Corner
from ...certification.levels import Settings, confirm_level
from ...certification.oracle import Oracle, solve
from ...certification.oracle_problems import ORACLE_PROBLEMS
from ...certification.points import points_of
from ...certification.subject import Subject, warmed
from ...gradients import seeded
from ...problems.placement import default_batch_size
from ...problems.point import placed, resolve_problem
from ...seeds import derived

CONFIDENCE = 0.99
_TOLERANCE, _MAX_EVALUATIONS = 0.02, 2.0**18  # less than of a certificate, so that there can be many
_DATA = 3
_SEED = 10_000_019  # between two studies


@cache
def place(
    estimator: str, problem: str, point: str, num_samples: int, batch_size: int
) -> tuple[Oracle, Callable[[], Estimator]]:
    """Exact answers at a point, and what gives an estimator that has seen it."""
    found = resolve_problem(problem, 0)
    data = min(_DATA, default_batch_size(found))
    loaded, x = placed(found, batch_size=data, seed=0, device=None, dtype=torch.float64)
    with seeded(0, x.device):
        eta = points_of(loaded, x, 0)[point]
        oracle = solve(loaded, point, x, eta, create(estimator).objective, num_samples)
        if isinstance(oracle, str):
            raise UsageError(f"{problem} at {point}: {oracle}")
        learned = warmed(lambda: create(estimator), oracle, num_samples, 0)
    return oracle.at(batch_size, "float64"), lambda: copy.deepcopy(learned)


def subject(estimator: Estimator, oracle: Oracle, num_samples: int, seed: int, index: int) -> Subject:
    """The estimator there, under the ``index``-th seed of a study, as certified on all oracle problems."""
    own = derived(_SEED * seed, "false alarms", index)
    level = confirm_level(len(ORACLE_PROBLEMS), 1)
    settings = Settings(CONFIDENCE, _TOLERANCE, level, seed=own, max_evaluations=_MAX_EVALUATIONS)
    corner = Corner(num_samples, len(oracle.eta))
    return Subject(estimator, oracle, corner, oracle.norm, settings, claims=True)
