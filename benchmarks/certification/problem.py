"""Certifying an estimator's claims on one oracle problem: at which points, S and batch sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.methods.gumbel_softmax import GumbelSoftmax
from ...estimators.posteriors.shared import shares_draws
from ...estimators.support import refusal
from ...estimators.text import one_line
from ..gradients import seeded
from ..oracles.references import RELAXED
from ..problems.as_trained import eta_of
from ..problems.forward_checks import check_forward
from ..problems.placement import default_batch_size
from ..problems.point import placed
from ..problems.protocol import Problem
from ..rows.certificate import Certificate
from ..rows.certificate_checks import Check
from ..seeds import derived
from .blocks import exact_bias
from .candidate import certificate_of
from .cell import Settings, certify_cell
from .oracle import Oracle, solve
from .points import points_of

_DATA = 3  # a point of a problem
_SIZES_TRIED = 8
_OF_SEVERAL_SAMPLES = ("iwae", "inclusive-kl")  # objectives whose exact answers depend on S


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
    if shares_draws(problem.posterior(eta_of(problem, x))):
        x = x[:1]  # gradients in η-space are told datum by datum, and several would share theirs
    with seeded(settings.seed, x.device):
        points = points_of(problem, x, settings.seed)
        sizes = _supported(estimator, problem, x, points["initial"])
        if isinstance(sizes, str):
            return certificate_of(build, [], settings, {label: sizes})
        checks: list[Check] = []
        unsolved: dict[str, str] = {}
        deadline = time.monotonic() + settings.seconds
        cells = _cells(estimator, problem, x, points, sizes)
        for index, cell in enumerate(cells):
            own = replace(settings, seed=derived(settings.seed, "cell", index))
            if isinstance(cell.oracle, str):
                unsolved[f"{label} at {cell.point}, S = {cell.num_samples}"] = cell.oracle
            else:
                arguments = (cell.num_samples, label, cell.typical_norm, own, deadline)
                checks += certify_cell(build, cell.oracle, *arguments)
            if isinstance(cell.beside, Oracle):
                checks += _beside(build, cell, cell.beside, label, own, deadline)
            if any(check.holds is False for check in checks):
                break  # clear already; the rest would only take time
    claimed = any(check.name != "elbo-bias" for check in checks)
    skipped = unsolved if claimed else {label: next(iter(unsolved.values()))}
    return certificate_of(build, checks, settings, skipped)


@dataclass(frozen=True)
class _Place:
    """Where claims are tested.

    Attributes:
        point: its name.
        num_samples: S.
        oracle: exact answers, or why there are none.
        typical_norm: of the gradient over the points.
        beside: for an objective of relaxed latents, the exact answers for the ELBO that it stands in for.
    """

    point: str
    num_samples: int
    oracle: Oracle | str
    typical_norm: float
    beside: Oracle | str | None = None


def _cells(
    estimator: Estimator, problem: Problem, x: Tensor, points: dict[str, Tensor], sizes: tuple[int, ...]
) -> Iterator[_Place]:
    """Every point at the smallest S; more S at few points, so that a slip at one S alone shows.

    The first point and the last but one at the second S, the second point at the third, the first at the
    fourth, and a single datum at the last.
    """
    objective, smallest = _objective(estimator), sizes[0]
    names = list(points)

    def solved(name: str, num_samples: int, data: int | None = None) -> Oracle | str:
        return solve(problem, name, x[:data], points[name][:data], objective, num_samples)

    at = {name: solved(name, smallest) for name in names}
    norms = [oracle.norm for oracle in at.values() if not isinstance(oracle, str)]
    typical = math.sqrt(sum(norm**2 for norm in norms) / max(len(norms), 1))
    for name in names:
        beside = None
        if estimator.objective == RELAXED:
            beside = solve(problem, name, x, points[name], "elbo", smallest)
        yield _Place(name, smallest, at[name], typical, beside)
    chosen = {1: (names[0], names[-2]), 2: (names[1],), 3: (names[0],)}
    for index, places in chosen.items():
        for name in dict.fromkeys(places) if index < len(sizes) else ():
            again = objective.partition("[")[0] in _OF_SEVERAL_SAMPLES
            yield _Place(name, sizes[index], solved(name, sizes[index]) if again else at[name], typical)
    yield _Place(names[0], sizes[-1], solved(names[0], sizes[-1], 1), typical)


def _objective(estimator: Estimator) -> str:
    """What is differentiated, with the temperature of a relaxation, which does not move."""
    if type(estimator) is GumbelSoftmax and not estimator.annealing:
        return f"{RELAXED}[temperature={float(estimator.temperature)!r}]"
    return estimator.objective


def _beside(
    build: Callable[[], Estimator],
    cell: _Place,
    elbo: Oracle,
    label: str,
    settings: Settings,
    deadline: float,
) -> list[Check]:
    """How far the gradient of relaxed latents is from the ELBO's: exactly where both are known."""
    if isinstance(cell.oracle, str):
        norm, arguments = elbo.norm, (cell.num_samples, label)
        return certify_cell(build, elbo, *arguments, norm, settings, deadline, claims=False)
    bias = exact_bias(elbo, cell.oracle.eta_grad, cell.typical_norm)
    return [Check("elbo-bias", True, "", label, cell.point, cell.num_samples, bias=bias)]


def _supported(estimator: Estimator, problem: Problem, x: Tensor, eta: Tensor) -> tuple[int, ...] | str:
    """S that the estimator supports here, the smallest first, or why it supports none.

    The first four of those tried and the largest, or the first three where exact answers get costly with S.
    """
    q, target = problem.posterior(eta), problem.target(x)
    try:
        smallest = max(int(estimator.min_samples), 1)
        answers = {s: refusal(estimator, q, target, s) for s in range(smallest, smallest + _SIZES_TRIED)}
    except Exception as error:  # a plugin may raise anything; the conformance suite says so too
        return f"supports() raises {type(error).__name__}: {one_line(error)}"
    sizes = tuple(s for s, answer in answers.items() if answer is None)
    if not sizes:
        return str(answers[smallest])
    cheap = estimator.objective not in _OF_SEVERAL_SAMPLES
    return tuple(dict.fromkeys((*sizes[:4], sizes[-1]))) if cheap else sizes[:3]
