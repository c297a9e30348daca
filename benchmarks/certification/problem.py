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
from .cell import certify_cell
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
_WORSE = 10  # times the tolerance, that a place goes on to reach where another could not do better
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
        checks: list[Check] = []
        unsolved: dict[str, str] = {}
        seen = _Warmed(build, settings.seed)
        corners = _corners(label, settings.seed)
        count = len(points) + len(corners)
        for index, place in enumerate(_places(estimator, problem, x, points, sizes, corners)):
            if isinstance(place.oracle, str):
                where = f"{label} at {place.point}, S = {place.corner.num_samples}"
                unsolved.setdefault(where, place.oracle)
            tolerance = min(_reached(checks, settings.tolerance), _WORSE * settings.tolerance)
            own = replace(settings, seed=derived(settings.seed, "cell", index), tolerance=tolerance)
            left = deadline - time.monotonic()
            if left <= 0 and index > 0:
                checks.append(_out_of_time(place, label))
                continue
            # One place may take more than its share, but not all that is left.
            share = left if math.isinf(left) else _SHARES * left / (count - index)
            found, refused = _certify_at(seen, place, label, own, min(deadline, time.monotonic() + share))
            checks += found
            unsolved |= refused
            if any(check.holds is False for check in checks):
                break  # clear already; the rest would only take time
    claimed = any(check.name != "elbo-bias" for check in checks)
    skipped = unsolved | refused_sizes(label, answers) if claimed else {label: next(iter(unsolved.values()))}
    return certificate_of(build, checks, settings, skipped)


def _reached(checks: Sequence[Check], tolerance: float) -> float:
    """The worst bound so far, which the verdict will tell: nothing is won by lower ones elsewhere."""
    return max([tolerance, *(c.bias.high for c in checks if c.name == "gradient" and c.bias is not None)])


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


def _certify_at(
    seen: _Warmed, place: _Place, label: str, settings: Settings, deadline: float
) -> tuple[list[Check], dict[str, str]]:
    """What is claimed there, of relaxed latents also how far the gradient is from that of the ELBO.

    And where the estimator refuses to be used, with the reason.
    """
    checks: list[Check] = []
    refused: dict[str, str] = {}

    def certify(oracle: Oracle, typical_norm: float, claims: bool) -> None:
        estimator = seen.at(oracle, place.corner.num_samples)
        arguments = (oracle, place.corner, label, typical_norm, settings, deadline)
        found = certify_cell(estimator, *arguments, claims=claims)
        if isinstance(found, str):
            corner = Check("", None, **vars(place.corner)).corner
            refused[f"{label} at {place.point}, {corner}"] = found
        else:
            checks.extend(found)

    elbo = place.beside
    if isinstance(place.oracle, Oracle):
        certify(place.oracle, place.typical_norm, claims=True)
        if isinstance(elbo, Oracle):
            bias = exact_bias(elbo, place.oracle.eta_grad, place.typical_norm)
            where = {"problem": label, "point": place.point, **vars(place.corner)}
            checks.append(Check("elbo-bias", True, bias=bias, exact=True, **where))
    elif isinstance(elbo, Oracle):
        certify(elbo, elbo.norm, claims=False)
    return checks, refused


def _answers(estimator: Estimator, problem: Problem, x: Tensor, eta: Tensor) -> dict[int, str | None] | str:
    """S, the smallest first -> why the estimator refuses it here, or None; or what its answer raises."""
    q, target = problem.posterior(eta), problem.target(x)
    try:
        smallest = max(int(estimator.min_samples), 1)
        tried = range(smallest, smallest + _LARGEST_SIZE)
        return {s: refusal(estimator, q, target, s) for s in tried}
    except Exception as error:  # a plugin may raise anything; the conformance suite says so too
        return f"supports() raises {type(error).__name__}: {one_line(error)}"
