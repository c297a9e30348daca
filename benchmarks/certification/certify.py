"""Certifying an estimator: the conformance suite, and its claims on oracle problems."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from unittest import SkipTest

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ...estimators.testing.check import estimator_checks
from ...estimators.testing.trial import NotApplicable
from ...estimators.text import one_line
from ..gradients import seeded
from ..problems.arguments import check_seed, shown
from ..problems.forward_checks import check_forward
from ..problems.placement import default_batch_size
from ..problems.point import placed, resolve_estimator, resolve_problem
from ..problems.protocol import Problem
from ..rows.certificate import ALARM_RATE, Certificate, Check, merge
from .cell import Settings, certify_cell
from .levels import check_range, confirm_level
from .oracle import Oracle, solve
from .oracle_problems import ORACLE_PROBLEMS
from .points import points_of

_DATA = 3  # a point of a problem
_SIZES_TRIED = 8

Given = str | Estimator | Callable[[], Estimator]


@torch.inference_mode(False)  # which is where some are called from; gradients are taken here
def certify(
    estimator: Given,
    problems: str | Problem | Sequence[str | Problem] | None = None,
    *,
    confidence: float = 0.99,
    budget: float | None = None,
    seed: int = 0,
    tolerance: float = 0.02,
) -> Certificate:
    """Test what an estimator claims against exact answers, and bound its bias.

    Runs the conformance suite; then, on every oracle problem that the estimator supports, at several
    points, S and batch sizes: its mean gradient in η against the exact one, per coordinate and jointly, its
    value, value's gradient in θ, and its variance where that is known in closed form. A correct estimator
    fails any check with probability 1e-3 at most, all checks together.

    Args:
        estimator: a specification, a class or function that returns a fresh estimator, or an instance,
            which is copied.
        problems: specifications or `Problem`s with an exact gradient; None for the suite's own.
        confidence: of the bias bound, one-sided.
        budget: seconds after which no new draws are begun (each problem gets a few in any case); None for
            a fixed amount of work, which gives the same numbers on every machine.
        seed: of all draws.
        tolerance: relative bias that the bound must reach for "holds".

    Returns:
        the verdict, with ``holds`` None where it was not reached.

    Raises:
        UsageError: no such estimator or problem, a value out of range, or a given problem on which nothing
            can be tested.
    """
    check_range(confidence, tolerance, budget)
    check_seed(seed)
    build = builder(estimator)
    chosen = _loaded(ORACLE_PROBLEMS if problems is None else problems)
    settings = Settings(
        confidence=confidence,
        tolerance=tolerance,
        confirm_level=confirm_level(len(chosen), 1),
        seed=seed,
        seconds=math.inf if budget is None else budget / len(chosen),
    )
    parts = [certify_contract(build, settings)]
    parts += [certify_problem(build, problem, label, settings) for label, problem in chosen.items()]
    if problems is not None and not any(part.checks for part in parts[1:]):
        label, reason = next(iter(parts[1].skipped.items()))
        raise UsageError(f"{parts[0].estimator} cannot be certified on {label}: {reason}")
    return merge(parts)


def certify_contract(build: Callable[[], Estimator], settings: Settings) -> Certificate:
    """The conformance suite under this run's seed and level."""
    checks = []
    for one in estimator_checks(build, settings.seed + 20_240, settings.confirm_level):
        try:
            one()
        except NotApplicable:
            continue
        except SkipTest as no_verdict:
            checks.append(Check(one.name, None, one_line(no_verdict)))
        except AssertionError as error:
            checks.append(Check(one.name, False, one_line(error)))
        else:
            checks.append(Check(one.name, True))
    return _certificate(build, checks, settings)


def certify_problem(
    build: Callable[[], Estimator], problem: Problem, label: str, settings: Settings
) -> Certificate:
    """The estimator's claims on one problem; a certificate without checks where nothing can be tested."""
    try:
        estimator = build()
    except Exception:  # the conformance suite says so
        return _certificate(build, [], settings, {label: "the estimator cannot be built"})
    data = min(_DATA, default_batch_size(problem))
    problem, x = placed(problem, batch_size=data, seed=settings.seed, dtype=torch.float64)
    with seeded(settings.seed, x.device):
        check_forward(problem, x)
    with seeded(settings.seed, x.device):
        points = points_of(problem, x, settings.seed)
        sizes = _supported(estimator, problem, x, points["initial"])
        if isinstance(sizes, str):
            return _certificate(build, [], settings, {label: sizes})
        checks: list[Check] = []
        unsolved: dict[str, str] = {}
        deadline = time.monotonic() + settings.seconds
        cells = _cells(estimator, problem, x, points, sizes)
        for index, (point, oracle, num_samples, typical) in enumerate(cells):
            if isinstance(oracle, str):
                unsolved[f"{label} at {point}, S = {num_samples}"] = oracle
                continue
            own = replace(settings, seed=settings.seed + 104_729 * (index + 1))
            checks += certify_cell(build, oracle, num_samples, label, typical, own, deadline)
            if any(check.holds is False for check in checks):
                break  # clear already; the rest would only take time
    skipped = unsolved if checks else {label: next(iter(unsolved.values()))}
    return _certificate(build, checks, settings, skipped)


def _cells(
    estimator: Estimator, problem: Problem, x: Tensor, points: dict[str, Tensor], sizes: tuple[int, ...]
) -> Iterator[tuple[str, Oracle | str, int, float]]:
    """(point, its exact answers or why there are none, S, typical norm of the gradient).

    Every point at the smallest S; the first and the last but one at the next; a single datum at the third.
    """
    objective, smallest = estimator.objective, sizes[0]
    solved = {name: solve(problem, name, x, eta, objective, smallest) for name, eta in points.items()}
    norms = [oracle.norm for oracle in solved.values() if not isinstance(oracle, str)]
    typical = math.sqrt(sum(norm**2 for norm in norms) / max(len(norms), 1))
    for name, oracle in solved.items():
        yield name, oracle, smallest, typical
    more = sizes[min(1, len(sizes) - 1)]
    for name in dict.fromkeys(("initial", list(points)[-2])):
        oracle = solved[name]
        if objective != "elbo" and not isinstance(oracle, str):
            oracle = solve(problem, name, x, points[name], objective, more)
        yield name, oracle, more, typical
    single = solve(problem, "initial", x[:1], points["initial"][:1], objective, sizes[-1])
    yield "initial", single, sizes[-1], typical


def builder(given: Given) -> Callable[[], Estimator]:
    """What returns a fresh estimator each time.

    Raises:
        UsageError: a specification that names none, or what is none.
    """
    if isinstance(given, str):
        create(given)  # what is wrong with it is told now
        return partial(create, given)
    if isinstance(given, Estimator):
        return partial(resolve_estimator, given)
    if not callable(given):
        raise UsageError(f"{shown(given)} is no estimator: give one, its specification, or what makes one")
    return given


def _certificate(
    build: Callable[[], Estimator],
    checks: Sequence[Check],
    settings: Settings,
    skipped: dict[str, str] | None = None,
) -> Certificate:
    try:
        estimator = build()
        label, objective, unbiased = estimator.label, estimator.objective, estimator.unbiased
    except Exception:
        label, objective, unbiased = getattr(build, "__name__", "estimator"), "elbo", True
    return Certificate(
        label,
        objective,
        bool(unbiased),
        tuple(checks),
        settings.confidence,
        settings.tolerance,
        ALARM_RATE,
        skipped or {},
    )


def _supported(estimator: Estimator, problem: Problem, x: Tensor, eta: Tensor) -> tuple[int, ...] | str:
    """Three S that the estimator supports here, the smallest first, or why it supports none.

    The last is the largest of those tried, or the third where exact answers get costly with S.
    """
    q, target = problem.posterior(eta), problem.target(x)
    try:
        smallest = max(int(estimator.min_samples), 1)
        answers = {s: estimator.supports(q, target, s) for s in range(smallest, smallest + _SIZES_TRIED)}
    except Exception as error:  # a plugin may raise anything; the conformance suite says so too
        return f"supports() raises {type(error).__name__}: {one_line(error)}"
    sizes = tuple(s for s, answer in answers.items() if answer is None)
    if not sizes:
        return str(answers[smallest])
    return (*sizes[:2], sizes[-1]) if estimator.objective == "elbo" and len(sizes) > 2 else sizes[:3]


def _loaded(problems: str | Problem | Sequence[str | Problem]) -> dict[str, Problem]:
    """Label -> problem."""
    several = problems if isinstance(problems, Sequence) and not isinstance(problems, str) else [problems]
    if not several:
        raise UsageError("problems is empty: give at least one")
    found: dict[str, Problem] = {}
    for one in several:
        if isinstance(one, str):
            found[one] = resolve_problem(one)
        else:
            resolve_problem(one)
            name = type(one).__name__
            label = name if name not in found else f"{name} {len(found) + 1}"
            found[label] = one
    return found
