"""The coverage of the bias bounds: estimators of a known bias, certified over and over.

A factor on a right gradient, or a vector added to it; look after look until the bound is reached. The ends of
the interval are held against that bias.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from ....estimators.base import Estimate, Estimator, Target
from ...certification.looks import sample
from ...certification.oracle import Oracle
from .places import place, subject


@dataclass(frozen=True)
class BiasCell:
    """Where coverage is looked at.

    Attributes:
        estimator, problem, point: what is certified, and where.
        num_samples, batch_size: S and B.
        factor: on the gradient.
        shift: added to every coordinate of the gradient in the mean of q.
    """

    estimator: str
    problem: str
    point: str
    num_samples: int
    batch_size: int
    factor: float = 1.0
    shift: float = 0.0


BIAS_CELLS = tuple(
    BiasCell(*where, *bias)
    for where in (
        ("measure-valued", "quadratic[loc=0.7,scale=0.6,k=1.5]", "initial", 1, 3),
        ("measure-valued", "exponential[loc=0.4,scale=1.3,k=0.8]", "initial", 1, 3),
        ("score-function", "cosine[loc=0.9,scale=0.8,k=1.2]", "extreme scales", 3, 3),
        ("measure-valued", "small-vae", "near-optimal", 1, 3),
    )
    for bias in ((1.0, 0.0), (1.003, 0.0), (1.05, 0.0), (1.0, 0.02))
)


@dataclass
class Coverage:
    """How often a bound held, in one cell.

    Attributes:
        cell: where.
        truth: the relative bias.
        repetitions: whole samplings of a place.
        below: whose upper end, the bound, is below the truth.
        above: whose lower end is above it.
        bound: the median of the bounds.
        failed: how often the claim to be unbiased was found to be wrong.
    """

    cell: BiasCell
    truth: float
    repetitions: int = 0
    below: int = 0
    above: int = 0
    bound: float = math.nan
    failed: int = 0


def coverage(cell: BiasCell, repetitions: int, seconds: float, seed: int = 0) -> Coverage:
    """Certify an estimator of known bias so many times, or for so many seconds."""
    oracle, warm = place(cell.estimator, cell.problem, cell.point, cell.num_samples, cell.batch_size)
    truth = float(_bias(oracle, cell).norm()) / oracle.norm
    found, bounds = Coverage(cell, truth), []
    end = time.monotonic() + seconds
    for repetition in range(repetitions):
        estimator = biased(warm(), cell.factor, cell.shift)
        one = subject(estimator, oracle, cell.num_samples, seed, repetition)
        with one.asking():
            outcome = sample(one, math.inf)
        found.repetitions += 1
        slack = 1e-6 * max(truth, 1e-6)  # rounding, and the error of exact answers
        found.below += outcome.bias.high < truth - slack
        found.above += outcome.bias.low > truth + slack
        found.failed += outcome.verdicts["gradient"][0] is False
        bounds.append(outcome.bias.high)
        if time.monotonic() > end:
            break
    found.bound = sorted(bounds)[len(bounds) // 2]
    return found


def _bias(oracle: Oracle, cell: BiasCell) -> torch.Tensor:
    """(factor − 1) times the exact gradient, and the shift times the derivative of the mean of q in η."""
    leaf = oracle.eta.clone().requires_grad_()
    (moved,) = torch.autograd.grad(oracle.problem.posterior(leaf).mean.sum(), leaf)
    return (cell.factor - 1) * oracle.eta_grad + cell.shift * moved


def biased(estimator: Estimator, factor: float, shift: float) -> Estimator:
    """The same with a factor on its gradient, and a vector added to it."""
    kind = type(estimator)

    def forward(self: Estimator, q: torch.distributions.Distribution, target: Target, n: int) -> Estimate:
        estimate: Estimate = kind.forward(self, q, target, n)
        return estimate._replace(surrogate=factor * estimate.surrogate + shift * q.mean.sum(-1))

    estimator.__class__ = type(f"Biased{kind.__name__}", (kind,), {"forward": forward})
    return estimator
