"""Writes the table of docs/certification.md: draws for a bound of 0.3%, without features and with them.

    python docs/scripts/draws_table.py

At every point of a problem both covariances are measured, and the draws follow from the formula of the bound
at a true bias of zero; the point that needs the most is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from elbograd.benchmarks.certification.blocks import exact_bias
from elbograd.benchmarks.certification.corners import Corner
from elbograd.benchmarks.certification.levels import LOOKS, TOLERANCE, Settings
from elbograd.benchmarks.certification.looks import Looks
from elbograd.benchmarks.certification.oracle import Oracle, solve
from elbograd.benchmarks.certification.points import points_of
from elbograd.benchmarks.certification.proof import prove
from elbograd.benchmarks.certification.subject import Subject, warmed
from elbograd.benchmarks.gradients import seeded
from elbograd.benchmarks.problems.point import placed
from elbograd.benchmarks.statistics.bias import bias_bound
from elbograd.estimators import create
from scipy import optimize
from torch import Tensor

PAGE = Path(__file__).parents[2] / "docs" / "certification.md"
BEGIN, END = "<!-- draws -->\n", "<!-- end of draws -->\n"
_BITS = "small-vae[posterior=bernoulli]"
#: (problem, estimator, S).
PLACES = (
    ("small-vae", "score-function", 1),
    ("small-vae", "leave-one-out", 4),
    ("small-vae", "reparameterization", 1),
    ("small-vae", "measure-valued", 1),
    ("gamma-poisson", "reparameterization", 1),
    (_BITS, "score-function", 1),
    (_BITS, "leave-one-out", 4),
    (_BITS, "vimco", 4),
    (_BITS, "leave-one-out", 16),
    (_BITS, "disarm", 2),
)
_DRAWS, _AT_A_TIME = 2**18, 2**12
_DATA = 3


class _Needed(NamedTuple):
    """Draws for the bound at one point.

    Attributes:
        raw: by the covariance of an estimate as it is.
        adjusted: by that of what features leave of it; None where no draws are needed.
        combinations: that a proof goes through, which takes the place of draws.
    """

    raw: float
    adjusted: float | None
    combinations: int = 0


def table() -> list[str]:
    """The lines of the table."""
    lines = ["| problem | estimator | S | without features | with |", "|---|---|---:|---:|---:|"]
    for problem, name, num_samples in PLACES:
        found = list(_at_points(problem, name, num_samples))
        cells = [f"`{problem}`", f"`{name}`", str(num_samples), _rounded(max(one.raw for one in found))]
        lines.append(f"| {' | '.join([*cells, _with_features(found)])} |")
        print(lines[-1], flush=True)
    return lines


def _with_features(found: list[_Needed]) -> str:
    sampled = [one.adjusted for one in found if one.adjusted is not None]
    if not sampled:
        return f"a proof: {found[0].combinations:,} combinations"
    if math.isinf(max(sampled)):
        return "not reached: states are too rare"
    return "rounding alone is left" if max(sampled) <= 1 else _rounded(max(sampled))


def _rounded(draws: float) -> str:
    """Two digits are what the covariances are known to."""
    digits = 1 - math.floor(math.log10(max(draws, 1)))
    return f"{int(round(max(draws, 1), digits)):,}"


def _at_points(name: str, estimator: str, num_samples: int) -> Iterator[_Needed]:
    settings = Settings()
    problem, x = placed(name, batch_size=_DATA, seed=settings.seed, dtype=torch.float64)
    build = partial(create, estimator)
    with seeded(settings.seed, x.device):
        etas, objective = points_of(problem, x, settings.seed), build().objective
        found = [solve(problem, point, x, eta, objective, num_samples) for point, eta in etas.items()]
        oracles = [oracle for oracle in found if isinstance(oracle, Oracle)]
        typical = math.sqrt(sum(oracle.norm**2 for oracle in oracles) / len(oracles))
        for oracle in oracles:
            own = warmed(build, oracle, num_samples, settings.seed)
            corner = Corner(num_samples, _DATA)
            yield _needed(Subject(own, oracle, corner, typical, settings, claims=True), typical)


def _needed(subject: Subject, typical: float) -> _Needed:
    size = exact_bias(subject.oracle, subject.oracle.eta_grad + 1, typical)
    scale = size.absolute / size.high  # what a bias is relative to
    proof = prove(subject)
    looks = Looks(subject, followed=True)
    subject.seed("look")
    drawn = [looks.explained.draw(_AT_A_TIME) for _ in range(_DRAWS // _AT_A_TIME)]
    raw, left = ([draws.gradient for draws in both] for both in zip(*drawn, strict=True))
    needed = _draws(torch.cat(raw), scale)
    if proof is not None:
        return _Needed(needed, None, proof.draws)
    return _Needed(needed, _draws(torch.cat(left), scale, looks.error(_DRAWS)))


def _draws(columns: Tensor, scale: float, error: float = 0.0) -> float:
    """Where the bound reaches the tolerance, if the estimate is off by no more than its noise."""
    covariance = columns.flatten(1).T.cov(correction=0)
    trace, squares = float(covariance.trace()), float(covariance.square().sum())
    largest = max(float(torch.linalg.eigvalsh(covariance)[-1]), 0.0)
    confidence = 1 - (1 - Settings().confidence) / LOOKS

    def above(log_draws: float) -> float:
        n = math.exp(log_draws)
        bound = bias_bound(trace / n, trace / n, largest / n, confidence, squares / n**2)
        return math.log(max(bound + error, 1e-300) / (TOLERANCE * scale))

    if above(60.0) > 0:
        return math.inf  # states too rare to be seen
    return 1.0 if above(0.0) <= 0 else math.exp(optimize.brentq(above, 0.0, 60.0))


def main() -> None:
    """Put the table into the page."""
    lines = table()
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
