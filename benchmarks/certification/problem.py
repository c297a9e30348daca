"""Certifying an estimator's claims on one oracle problem: at which points, S and batch sizes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
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
from ..rows.certificate_untried import refused_sizes
from ..seeds import derived
from .blocks import exact_bias
from .candidate import certificate_of
from .cell import WORSE, Cell
from .corners import CORNERS, Corner, drawn_corner, nearest
from .levels import Settings
from .oracle import Oracle, solve
from .oracle_problems import EVERY_CORNER, ORACLE_PROBLEMS
from .points import points_of
from .subject import warmed

_DATA = 3  # a point of a problem
_STRIDE = 3
_SHARES = 3  # of the time that is left for a place, that one may take
_LARGEST_SIZE = 160  # S, up to which it is asked whether it is supported
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
    deadline = time.monotonic() + settings.seconds
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
        answers = _answers(estimator, problem, x, points["initial"])
        sizes = () if isinstance(answers, str) else tuple(s for s, why in answers.items() if why is None)
        if isinstance(answers, str) or not sizes:
            reason = answers if isinstance(answers, str) else str(next(iter(answers.values())))
            return certificate_of(build, [], settings, {label: reason})
        untried: dict[str, str] = {}
        seen = _Warmed(build, settings.seed)
        corners = _corners(label, settings.seed)
        count = len(points) + len(corners)
        found: list[Cell | Check] = []
        for index, place in enumerate(_places(estimator, problem, x, points, sizes, corners)):
            left = deadline - time.monotonic()
            if left <= 0 and index > 0:
                found.append(_out_of_time(place, label))
                continue
            # One place may take more than its share, but not all that is left.
            share = left if math.isinf(left) else _SHARES * left / (count - index)
            own = replace(settings, seed=derived(settings.seed, "cell", index))
            begun = _begin(seen, place, label, own, min(deadline, time.monotonic() + share))
            found += begun
            untried |= _untried(begun, place, label)
            if any(isinstance(one, Cell) and one.failed for one in begun):
                break  # clear already; the rest would only take time
        _bring_down([one for one in found if isinstance(one, Cell)], settings.tolerance, deadline)
        checks = [check for one in found for check in (one.checks() if isinstance(one, Cell) else [one])]
    claimed = any(check.name != "elbo-bias" for check in checks)
    skipped = untried | refused_sizes(label, answers) if claimed else {label: next(iter(untried.values()))}
    return certificate_of(build, checks, settings, skipped)


def _bring_down(cells: Sequence[Cell], tolerance: float, deadline: float) -> None:
    """Draw more where a bound is the worst, look by look.

    A verdict tells the worst of all places: where that can be brought down no further, or not as far as to be
    worth the draws (`Cell.goal`), lower bounds elsewhere win nothing, and none is brought below it.
    """
    while not any(cell.failed for cell in cells):
        goals = [cell.goal(deadline) for cell in cells]
        ended = [
            min(cell.excess, goal) if cell.can(deadline) else cell.excess
            for cell, goal in zip(cells, goals, strict=True)
            if cell.bounded
        ]
        reached = max(tolerance, min(max(ended, default=0.0), WORSE * tolerance))
        open_ = [
            cell
            for cell, goal in zip(cells, goals, strict=True)
            if cell.can(deadline) and (cell.excess > max(reached, goal) or cell.in_want_of_proof(deadline))
        ]
        if not open_:
            return
        max(open_, key=lambda cell: cell.excess).go_on(deadline)


def _out_of_time(place: _Place, label: str) -> Check:
    reason = "not begun: the time allowed was spent before (see --budget)"
    return Check("gradient", None, reason, label, place.point, **vars(place.corner))


class _Warmed:
    """Estimators that have seen a point, one a point: what they have learned there serves every corner."""

    def __init__(self, build: Callable[[], Estimator], seed: int) -> None:
        self._build, self._seed = build, seed
        self._found: dict[tuple[str, str], Estimator | Exception] = {}

    def at(self, oracle: Oracle, num_samples: int) -> Callable[[], Estimator]:
        """What returns the estimator, or raises what it raised."""
        key = oracle.point, oracle.objective
        if key not in self._found:
            try:
                self._found[key] = warmed(self._build, oracle, num_samples, self._seed)
            except Exception as error:  # a plugin may raise anything
                self._found[key] = error
        found = self._found[key]

        def give() -> Estimator:
            if isinstance(found, Exception):
                raise found
            return copy.deepcopy(found)

        return give


@dataclass(frozen=True)
class _Place:
    """Where claims are tested.

    Attributes:
        point: its name.
        corner: S, B, the floating-point type and the mode.
        oracle: exact answers for all data, or why there are none.
        typical_norm: of the gradient over the points.
        beside: for an objective of relaxed latents, the exact answers for the ELBO that it stands in for.
    """

    point: str
    corner: Corner
    oracle: Oracle | str
    typical_norm: float
    beside: Oracle | str | None = None


def _places(
    estimator: Estimator,
    problem: Problem,
    x: Tensor,
    points: dict[str, Tensor],
    sizes: tuple[int, ...],
    corners: Sequence[Corner],
) -> Iterator[_Place]:
    """Every point at the smallest S, and every corner at one of the points, in turn."""
    objective, smallest, names = _objective(estimator), sizes[0], list(points)
    again = objective.partition("[")[0] in _OF_SEVERAL_SAMPLES
    found: dict[tuple[str, int], Oracle | str] = {}

    def solved(name: str, num_samples: int) -> Oracle | str:
        key = name, num_samples if again else smallest
        if key not in found:
            found[key] = solve(problem, name, x, points[name], objective, num_samples)
        return found[key]

    norms = [oracle.norm for name in names if isinstance(oracle := solved(name, smallest), Oracle)]
    typical = math.sqrt(sum(norm**2 for norm in norms) / max(len(norms), 1))
    for name in names:
        beside = None
        if estimator.objective == RELAXED:
            beside = solve(problem, name, x, points[name], "elbo", smallest)
        yield _Place(name, Corner(smallest, len(x)), solved(name, smallest), typical, beside)
    shared = shares_draws(problem.posterior(points[names[0]]))
    for index, corner in enumerate(_supported_corners(corners, sizes, len(x) if shared else None)):
        name = names[index % len(names)]
        yield _Place(name, corner, solved(name, corner.num_samples), typical)


def _corners(label: str, seed: int) -> Sequence[Corner]:
    """All of one problem for each kind of posterior, of the others every third, in turn, and one drawn."""
    if label in EVERY_CORNER:
        return (*CORNERS, drawn_corner(seed))
    start = ORACLE_PROBLEMS.index(label) if label in ORACLE_PROBLEMS else 0
    return (*CORNERS[start % _STRIDE :: _STRIDE], drawn_corner(seed))


def _supported_corners(corners: Sequence[Corner], sizes: tuple[int, ...], data: int | None) -> list[Corner]:
    """Those whose S is supported, or a little more; with so many data where these share their draws."""
    found = []
    for corner in corners:
        size = nearest(max(corner.num_samples, sizes[0]), sizes)
        if size is not None:
            found.append(replace(corner, num_samples=size, batch_size=data or corner.batch_size))
    return list(dict.fromkeys(found))


def _objective(estimator: Estimator) -> str:
    """What is differentiated, with the temperature of a relaxation, which does not move."""
    if type(estimator) is GumbelSoftmax and not estimator.annealing:
        return f"{RELAXED}[temperature={float(estimator.temperature)!r}]"
    return estimator.objective


def _begin(
    seen: _Warmed, place: _Place, label: str, settings: Settings, deadline: float
) -> list[Cell | Check]:
    """What is claimed there, of relaxed latents also how far the gradient is from that of the ELBO."""
    found: list[Cell | Check] = []

    def begin(oracle: Oracle, typical_norm: float, claims: bool) -> None:
        estimator = seen.at(oracle, place.corner.num_samples)
        found.append(Cell(estimator, oracle, place.corner, label, typical_norm, settings, claims))
        found[-1].begin(deadline)  # type: ignore[union-attr]

    elbo = place.beside
    if isinstance(place.oracle, Oracle):
        begin(place.oracle, place.typical_norm, claims=True)
        if isinstance(elbo, Oracle):
            bias = exact_bias(elbo, place.oracle.eta_grad, place.typical_norm)
            where = {"problem": label, "point": place.point, **vars(place.corner)}
            found.append(Check("elbo-bias", True, bias=bias, exact=True, **where))
    elif isinstance(elbo, Oracle):
        begin(elbo, elbo.norm, claims=False)
    return found


def _untried(begun: Sequence[Cell | Check], place: _Place, label: str) -> dict[str, str]:
    """Where there are no exact answers, or the estimator refuses to be used, with the reason."""
    found = {}
    if isinstance(place.oracle, str):
        found[f"{label} at {place.point}, S = {place.corner.num_samples}"] = place.oracle
    corner = Check("", None, **vars(place.corner)).corner
    for one in begun:
        if isinstance(one, Cell) and one.refused is not None:
            found[f"{label} at {place.point}, {corner}"] = one.refused
    return found


def _answers(estimator: Estimator, problem: Problem, x: Tensor, eta: Tensor) -> dict[int, str | None] | str:
    """S, the smallest first -> why the estimator refuses it here, or None; or what its answer raises."""
    q, target = problem.posterior(eta), problem.target(x)
    try:
        smallest = max(int(estimator.min_samples), 1)
        tried = range(smallest, smallest + _LARGEST_SIZE)
        return {s: refusal(estimator, q, target, s) for s in tried}
    except Exception as error:  # a plugin may raise anything; the conformance suite says so too
        return f"supports() raises {type(error).__name__}: {one_line(error)}"
