"""The level of the tests: right estimators, looked at over and over.

As `certify` looks at them: features fitted to a pilot, means of fresh draws put through Hall's transform. How
often |H| passes the quantiles that a confirmation asks for, of the means that a look has a verdict on, is
held against how often it should; and how often a look raises an alarm, against its 1e-3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from scipy import stats

from ....estimators.testing.mean_test import MAX_SKEW, SCREEN_LEVEL, hall_transform
from ...certification.blocks import Block
from ...certification.looks import Looks
from ...certification.moments import ColumnSums
from ...certification.sequential import MeanTest
from .places import place, subject

#: One-sided; the last about that of a confirmation where one estimator is certified on all oracle problems.
LEVELS = (1e-2, 1e-3, 5e-5)
_DRAWS = 512  # the fewest of a look: with more of them the level is easier to keep
_LOOKS_A_PILOT = 50


@dataclass(frozen=True)
class LevelCell:
    """Where the level is looked at.

    Attributes:
        family: of features, by the noise that they are functions of.
        estimator, problem, point: what is certified, and where.
        num_samples, batch_size: S and B.
    """

    family: str
    estimator: str
    problem: str
    point: str
    num_samples: int
    batch_size: int


LEVEL_CELLS = (
    LevelCell("normal", "measure-valued", "exponential[loc=0.4,scale=1.3,k=0.8]", "extreme scales", 1, 9),
    LevelCell("normal", "measure-valued", "small-vae", "scales", 1, 9),
    LevelCell("normal, pairs", "iwae", "linear-gaussian[latent_dim=1,data_dim=2]", "initial", 2, 3),
    LevelCell("uniform", "rebar", "small-vae[posterior=bernoulli]", "near-optimal", 1, 9),
    LevelCell("uniform", "reparameterization[draws=sobol]", "small-vae", "scales", 2, 9),
    LevelCell("exponential", "relax", "small-vae[posterior=categorical]", "near-optimal", 1, 3),
    LevelCell("exponential", "unordered-set", "small-vae[posterior=categorical]", "near-optimal", 3, 3),
    LevelCell("bits", "muprop", "small-vae[posterior=bernoulli]", "near-optimal", 1, 9),
    LevelCell(
        "bits, pairs", "double-control-variate", "small-vae[posterior=bernoulli]", "near-optimal", 3, 3
    ),
    LevelCell("bits, pairs", "vimco", "waves[posterior=bernoulli,latent_dim=7]", "near-optimal", 2, 3),
    LevelCell("states, pairs", "vimco", "waves[posterior=categorical,latent_dim=4]", "near-optimal", 2, 3),
    LevelCell("gamma", "generalized-reparameterization", "gamma-poisson", "stretched", 1, 9),
    LevelCell("gamma, pairs", "leave-one-out", "gamma-poisson", "near-optimal", 3, 3),
)


@dataclass
class Level:
    """How often means of zero look as if they were none, of one claim of a cell.

    Attributes:
        cell: where.
        claim: "gradient", "value", "theta" or "variance".
        draws: of a look.
        looks: taken.
        means: tested, over all looks, whose noise is more than rounding.
        judged: of them, not too skewed.
        above: how many of both signs passed each of `LEVELS`.
        screens: looks that raised an alarm.
    """

    cell: LevelCell
    claim: str
    draws: int
    looks: int = 0
    means: int = 0
    judged: int = 0
    above: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    screens: int = 0


def levels(cell: LevelCell, looks: int, seconds: float, seed: int = 0) -> list[Level]:
    """Look at a cell so many times, or for so many seconds."""
    oracle, warm = place(cell.estimator, cell.problem, cell.point, cell.num_samples, cell.batch_size)
    found: dict[str, Level] = {}
    end = time.monotonic() + seconds
    for look in range(looks):
        if look % _LOOKS_A_PILOT == 0:
            one = subject(warm(), oracle, cell.num_samples, seed, look)
            with one.asking():
                drawing = Looks(one, followed=True)
        with one.asking():
            sums = drawing.sums(_DRAWS, look % _LOOKS_A_PILOT)
        for block, taken in sums:
            if block in drawing.blocks:
                _count(found.setdefault(block.name, Level(cell, block.name, taken.n)), block, taken)
        if time.monotonic() > end:
            break
    return [level for level in found.values() if level.means]


def _count(level: Level, block: Block, taken: ColumnSums) -> None:
    floor, n = block.test.floor, taken.n
    mean, variance, third = (part[: len(floor)] for part in taken.central)
    h, g = hall_transform(mean, variance, third, n, floor)
    live = variance / n > floor**2
    judged = live & (g.abs() <= MAX_SKEW)
    level.looks += 1
    level.means += int(live.sum())
    level.judged += int(judged.sum())
    for index, tail in enumerate(LEVELS):
        level.above[index] += int((h[judged].abs() > stats.t.isf(tail, n - 1)).sum())
    screen = MeanTest(floor, block.test.joint, SCREEN_LEVEL)
    screen.take(taken)
    level.screens += screen.waiting
