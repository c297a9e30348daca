"""Certifying an estimator's claims on one oracle problem: at which points, S and batch sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.text import one_line
from ..gradients import seeded
from ..problems.forward_checks import check_forward
from ..problems.placement import default_batch_size
from ..problems.point import placed
from ..problems.protocol import Problem
from ..rows.certificate import Certificate
from ..rows.certificate_checks import Check
from ..seeds import derived
from .candidate import certificate_of
from .cell import Settings, certify_cell
from .oracle import Oracle, solve
from .points import points_of

_DATA = 3  # a point of a problem
_SIZES_TRIED = 8


def certify_problem(
    build: Callable[[], Estimator],
    problem: Problem,
    label: str,
    settings: Settings,
    device: str | None = None,
) -> Certificate:
    """The estimator's claims on one problem; a certificate without checks where nothing can be tested.

    Args:
        build: makes the estimator anew.
        problem: in any floating-point type; certified in float64.
        label: what results call it.
        settings: of the tests.
        device: None for where the problem is.
    """
    try:
        estimator = build()
    except Exception:  # the conformance suite says so
        return certificate_of(build, [], settings, {label: "the estimator cannot be built"})
    data = min(_DATA, default_batch_size(problem))
    problem, x = placed(problem, batch_size=data, seed=settings.seed, device=device, dtype=torch.float64)
    with seeded(settings.seed, x.device):
        check_forward(problem, x)
    with seeded(settings.seed, x.device):
        points = points_of(problem, x, settings.seed)
        sizes = _supported(estimator, problem, x, points["initial"])
        if isinstance(sizes, str):
            return certificate_of(build, [], settings, {label: sizes})
        checks: list[Check] = []
        unsolved: dict[str, str] = {}
        deadline = time.monotonic() + settings.seconds
        cells = _cells(estimator, problem, x, points, sizes)
        for index, (point, oracle, num_samples, typical) in enumerate(cells):
            if isinstance(oracle, str):
                unsolved[f"{label} at {point}, S = {num_samples}"] = oracle
                continue
            own = replace(settings, seed=derived(settings.seed, "cell", index))
            checks += certify_cell(build, oracle, num_samples, label, typical, own, deadline)
            if any(check.holds is False for check in checks):
                break  # clear already; the rest would only take time
    skipped = unsolved if checks else {label: next(iter(unsolved.values()))}
    return certificate_of(build, checks, settings, skipped)


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
