"""Certifying an estimator: the conformance suite, and its claims on oracle problems."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from ...estimators.errors import UsageError
from ..problems.arguments import checked_seed
from ..problems.as_trained import as_trained
from ..problems.point import resolve_problem
from ..problems.protocol import Problem
from ..rows.certificate import Certificate, merge
from .candidate import Given, builder
from .contract import certify_contract
from .levels import CONTRACT_SHARE, TOLERANCE, Settings, check_range, confirm_level
from .oracle_problems import ORACLE_PROBLEMS
from .problem import certify_problem


@as_trained()
def certify(
    estimator: Given,
    problems: str | Problem | Sequence[str | Problem] | None = None,
    *,
    confidence: float = 0.99,
    budget: float | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Certificate:
    """Test what an estimator claims against exact answers, and bound its bias.

    Runs the conformance suite; then, on every oracle problem that the estimator supports, at several
    points, S and batch sizes: its mean gradient in η against the exact one, per coordinate and jointly, that
    in what a posterior of several latents holds of φ itself, its value, value's gradient in θ, and its
    variance where that is known in closed form. A correct estimator
    fails any check with probability 1e-3 at most, all checks together.

    Args:
        estimator: a specification, a class or function that returns a fresh estimator, or an instance,
            which is copied.
        problems: specifications or `Problem`s with an exact gradient; None for the suite's own.
        confidence: of the bias bound, one-sided.
        budget: seconds that it may take, within a fifth; None for a fixed amount of work, which gives the
            same numbers on every machine.
        seed: of all draws.
        tolerance: relative bias that the bound must reach for "holds".

    Returns:
        the verdict, with ``holds`` None where it was not reached.

    Raises:
        UsageError: no such estimator or problem, a value out of range, or a given problem on which nothing
            can be tested.
    """
    check_range(confidence, tolerance, budget)
    seed = checked_seed(seed)
    build = builder(estimator)
    chosen = _loaded(ORACLE_PROBLEMS if problems is None else problems, seed)
    settings = Settings(
        confidence=confidence,
        tolerance=tolerance,
        confirm_level=confirm_level(len(chosen), 1),
        seed=seed,
    )
    end = math.inf if budget is None else time.monotonic() + budget
    parts = [certify_contract(build, replace(settings, seconds=CONTRACT_SHARE * (budget or math.inf)))]
    for index, (label, problem) in enumerate(chosen.items()):
        share = (end - time.monotonic()) / (len(chosen) - index)
        parts.append(certify_problem(build, problem, label, replace(settings, seconds=share)))
    if problems is not None and not any(part.checks for part in parts[1:]):
        label, reason = next(iter(parts[1].skipped.items()))
        raise UsageError(f"{parts[0].estimator} cannot be certified on {label}: {reason}")
    return merge(parts)


def _loaded(problems: str | Problem | Sequence[str | Problem], seed: int) -> dict[str, Problem]:
    """Label -> problem."""
    several = (
        problems if isinstance(problems, Sequence) and not isinstance(problems, str | bytes) else [problems]
    )
    if not several:
        raise UsageError("problems is empty: give at least one")
    found: dict[str, Problem] = {}
    for one in several:
        if isinstance(one, str):
            found[one] = resolve_problem(one, seed)
        else:
            resolve_problem(one)
            name = type(one).__name__
            label = name if name not in found else f"{name} {len(found) + 1}"
            found[label] = one
    return found
