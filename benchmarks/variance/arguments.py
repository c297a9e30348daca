"""What may be asked for: each wrong argument is told in one line."""

from __future__ import annotations

import copy

from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..problems.checks import check_problem
from ..problems.placement import is_integer
from ..problems.protocol import Problem
from ..problems.registry import load_problem

ROUTES = ("factorized", "full")
WRT = ("phi", "theta")
#: The least that each count may be, where that is not 1.
_LEAST = {"replicates": 2, "warmup": 0}


def resolve(problem: Problem | str, estimator: Estimator | str) -> tuple[Problem, Estimator]:
    """Make what was given by specification, and a copy of an estimator that was not."""
    if isinstance(problem, str):
        problem = load_problem(problem)
    check_problem(problem)
    if isinstance(estimator, str):
        return problem, create(estimator)
    if not isinstance(estimator, Estimator):
        raise UsageError(f"{estimator!r} is not an Estimator: give an instance or its specification")
    return problem, copy.deepcopy(estimator)


def check_data(x: object) -> None:
    """Raise UsageError unless x is None or a tensor of data."""
    if x is not None and not (isinstance(x, Tensor) and x.dim() > 0 and len(x) > 0):
        raise UsageError("x must be a tensor (B, ...) of at least one datum")


def check_counts(*, num_samples: int, replicates: int, **optional: int | None) -> None:
    """Raise UsageError for a count that is no integer, or too small."""
    given = {"num_samples": num_samples, "replicates": replicates}
    given |= {name: value for name, value in optional.items() if value is not None}
    for name, value in given.items():
        least = _LEAST.get(name, 1)
        if not is_integer(value) or value < least:
            raise UsageError(f"{name} must be an integer of at least {least}, not {value!r}")


def check_seed(seed: int) -> None:
    """Raise UsageError unless torch's generators take the seed, and those after it."""
    if not is_integer(seed) or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be an integer from 0 to 2**63 - 1, not {seed!r}")


def check_route(route: str) -> None:
    """Raise UsageError for an unknown route."""
    if route not in ROUTES:
        raise UsageError(f"route={route!r} is not one of {', '.join(ROUTES)}")


def check_choices(precision: float | None, wrt: str, route: str) -> None:
    """Raise UsageError for a precision that none can reach, or an unknown parameter side or route."""
    if precision is not None and (not isinstance(precision, float) or not 0 < precision < 1):
        raise UsageError(f"precision must be between 0 and 1, not {precision!r}")
    if wrt not in WRT:
        raise UsageError(f"wrt={wrt!r} is not one of {', '.join(WRT)}")
    check_route(route)
