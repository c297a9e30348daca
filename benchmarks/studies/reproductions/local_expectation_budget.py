"""De Smet et al. 2023: local expectation (IndeCateR) against leave-one-out at equal evaluations."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from ...problems.discrete_functions import DiscreteCost
from ...statistics.moments import Moments
from .agreement import Mean, Variance, cost_gradient, means_agree, measure, points, total, variances_agree
from .closed_forms import sample_covariance
from .result import Claim, Curve, Panel, Reproduction

Array = NDArray[np.float64]

_SETTINGS = ((12, 3), (6, 10), (3, 100))
_SHARES = (0.003, 0.03, 0.3, 1.0)
_ZERO = 1e-20  # of leave-one-out's variance


class Variables:
    """D independent variables of K states; tables of all states are (K,) * D.

    Attributes:
        probs: (D, K).
        joint: probabilities of all states.
        rest: for each variable the probabilities of the others' states, flat.
        evaluations: of one local expectation: the sample, and every other state of each variable.
    """

    def __init__(self, probs: Array) -> None:
        self.probs = probs
        size, states = probs.shape
        self.joint = _product(probs).reshape((states,) * size)
        self.rest = [_product(np.delete(probs, axis, 0)) for axis in range(size)]
        self.evaluations = 1 + size * (states - 1)

    def along(self, axis: int, values: Array) -> Array:
        """Values (K,) as a table that varies along one axis."""
        shape = [1] * len(self.probs)
        shape[axis] = -1
        return values.reshape(shape)

    def unfolded(self, axis: int, table: Array) -> Array:
        """A table as (K, states of the others)."""
        return np.moveaxis(table, axis, 0).reshape(len(self.probs[axis]), -1)

    def expect(self, table: Array) -> float:
        """E of a table."""
        return float(np.vdot(self.joint, table))

    def conditional(self, table: Array) -> Array:
        """E[table | z_i = k], (D, K)."""
        return np.array([self.unfolded(axis, table) @ rest for axis, rest in enumerate(self.rest)])

    def standardized(self, table: Array) -> Array:
        """Less its mean, over its standard deviation."""
        centred = table - self.expect(table)
        return centred / self.expect(centred**2) ** 0.5

    def additive_part(self, table: Array) -> Array:
        """Σ_i E[table | z_i], of a table of mean zero: its best approximation by a sum over variables."""
        found = np.zeros_like(self.joint)
        for axis, effect in enumerate(self.conditional(table)):
            found += self.along(axis, effect)
        return found

    def gradient(self, table: Array) -> Array:
        """∂ E f in the logits, (D, K): π_ik (E[f | z_i = k] − E f)."""
        return self.probs * (self.conditional(table) - self.expect(table))


def _product(probs: Array) -> Array:
    """Probabilities of all states of these variables, flat."""
    found = np.ones(1)
    for one in probs:
        found = np.multiply.outer(found, one).ravel()
    return found


def local_expectation(variables: Variables, table: Array) -> float:
    """tr Cov of π_ik (f(k, z_rest) − Σ_j π_ij f(j, z_rest)) over the variables left of z, one sample."""
    trace = 0.0
    for axis, (probs, rest) in enumerate(zip(variables.probs, variables.rest, strict=True)):
        unfolded = variables.unfolded(axis, table)
        estimate = probs[:, None] * (unfolded - probs @ unfolded)
        estimate -= (estimate @ rest)[:, None]
        trace += float((estimate**2 @ rest).sum())
    return trace


def leave_one_out(variables: Variables, table: Array, samples: int) -> float:
    """tr Cov by the moments of f and of the scores 1(z_i = k) − π_ik."""
    probs = variables.probs
    centred = table - variables.expect(table)
    spread = variables.expect(centred**2)
    squares = probs * variables.conditional(centred**2)
    both = (1 - probs) ** 2 * squares + probs**2 * (spread - squares)
    product, apart = probs * variables.conditional(centred), spread * probs * (1 - probs)
    coordinates = zip(both.flat, product.flat, apart.flat, strict=True)
    return sum(sample_covariance(*moments, samples) for moments in coordinates)


class Costs(NamedTuple):
    """Tables of f, all of mean 0 and variance 1: a sum over variables, a norm, and what no sum explains."""

    additive: Array
    norm: Array
    interaction: Array

    def mixed(self, share: float) -> Array:
        """So much of the variance from the interaction, the rest additive."""
        return (1 - share) ** 0.5 * self.additive + share**0.5 * self.interaction


def draw(size: int, states: int, seed: int) -> tuple[Variables, Costs]:
    """Logits N(0, 1) and a target state b, as the publication has; the interaction is noise less its sum."""
    generator = np.random.default_rng((seed, size, states))
    odds = np.exp(generator.standard_normal((size, states)))
    variables = Variables(odds / odds.sum(1, keepdims=True))
    target = generator.integers(states, size=size)
    shape = (states,) * size
    distances = [
        np.broadcast_to(variables.along(axis, np.abs(np.arange(states) - b) + 0.0), shape)
        for axis, b in enumerate(target)
    ]
    noise = variables.standardized(generator.standard_normal(shape))
    return variables, Costs(
        variables.standardized(sum(distances, np.zeros(shape))),
        variables.standardized(sum((d**2 for d in distances), np.zeros(shape)) ** 0.5),
        variables.standardized(noise - variables.additive_part(noise)),
    )


class TableCost(DiscreteCost):
    """A cost that is looked up in a table of all states."""

    def __init__(self, variables: Variables, table: Array) -> None:
        self.latent_dim, self.states = variables.probs.shape
        super().__init__(torch.from_numpy(np.log(variables.probs).ravel()), variables.probs.size)
        self.table = torch.from_numpy(np.ascontiguousarray(table).ravel())
        steps = self.states ** torch.arange(self.latent_dim - 1, -1, -1)
        self.place = (steps[:, None] * torch.arange(self.states)).double()

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent categorical variables, one-hot (D, K), for eta (*batch, D·K)."""
        logits = eta.unflatten(-1, (-1, self.states))
        return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

    def cost(self, z: Tensor) -> Tensor:
        """The entry at z (..., D, K)."""
        return self.table[(z * self.place).sum((-2, -1)).long()]


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Both estimators at every setting: enumerated, then measured."""
    replicates = 400 if quick else 2000
    claims, panels = [], []
    agreeing: list[Variance] = []
    means: list[Mean] = []
    for size, states in _SETTINGS[1:2] if quick else _SETTINGS:
        at = _Setting(size, states, replicates, seed)
        claims += [at.equal(), at.additive(), at.norm(), at.crossing()]
        panels.append(at.panel())
        agreeing += at.variances
        means += at.means
    return Reproduction(
        "local-expectation-budget",
        "De Smet et al., Differentiable Sampling of Categorical Distributions (IndeCateR), 2023",
        "D variables of K states, logits N(0, 1); one local expectation against leave-one-out with as many "
        "samples as it has evaluations, 1 + D(K − 1); costs scaled to variance 1; "
        f"{replicates:,} estimates a point.",
        [
            variances_agree("variances agree with enumeration", agreeing),
            means_agree("means agree with the exact gradient", means),
            *claims,
        ],
        panels,
        "The publication's program sums |z_i − b_i| over the variables, of which a local expectation is "
        "exact: its variance of 0 says nothing about costs that couple variables. A norm couples them a "
        "little; the lines mix the sum with a cost that no sum explains, and beyond a share of it "
        "leave-one-out is better.",
        "enumeration of all states",
    )


class _Setting:
    """One (D, K), enumerated and measured."""

    def __init__(self, size: int, states: int, replicates: int, seed: int) -> None:
        self.name = f"D = {size}, K = {states}"
        self.at, self.costs = draw(size, states, seed)
        self.replicates, self.seed = replicates, seed
        self.evaluations: dict[str, int] = {}
        self.variances: list[Variance] = []
        self.means: list[Mean] = []
        self.samples = {"local-expectation": 1, "leave-one-out": self.at.evaluations}
        self.mixtures = {
            name: [self.measure(name, self.costs.mixed(share)) for share in _SHARES] for name in self.samples
        }

    def exact(self, name: str, table: Array) -> float:
        """The enumerated variance."""
        if name == "local-expectation":
            return local_expectation(self.at, table)
        return leave_one_out(self.at, table, self.samples[name])

    def measure(self, name: str, table: Array) -> Moments:
        """The measured one, kept beside the enumerated for the joint test."""
        v = measure(TableCost(self.at, table), name, self.replicates, self.seed, self.samples[name])
        self.evaluations[name] = v.evaluations
        self.variances.append(Variance(total(v), self.exact(name, table)))
        self.means.append(cost_gradient(v, torch.from_numpy(self.at.gradient(table).ravel())))
        return total(v)

    def equal(self) -> Claim:
        """As many evaluations for both."""
        ours, expected = set(self.evaluations.values()), self.at.evaluations
        return Claim(
            f"{self.name}: equal evaluations",
            " and ".join(map(str, self.evaluations.values())),
            f"1 + D(K − 1) = {expected}",
            ours == {expected},
        )

    def additive(self) -> Claim:
        """The publication's cost leaves no variance to a local expectation."""
        v = measure(TableCost(self.at, self.costs.additive), "local-expectation", 100, self.seed)
        other = self.exact("leave-one-out", self.costs.additive)
        return Claim(
            f"{self.name}: a sum over the variables leaves local-expectation no variance",
            f"{v.total:.1g}, leave-one-out {other:.3g}",
            "0 to rounding",
            v.total <= _ZERO * other,
        )

    def norm(self) -> Claim:
        """A cost that is nearly a sum."""
        table = self.costs.norm
        found = {name: self.measure(name, table) for name in self.samples}
        local, other = (self.exact(name, table) for name in self.samples)
        explained = self.at.expect(self.at.additive_part(table) ** 2)
        apart = found["local-expectation"].interval()[1] < found["leave-one-out"].interval()[0]
        return Claim(
            f"{self.name}: norm of z − b, {100 * (1 - explained):.1f}% of whose variance no sum explains",
            f"leave-one-out {other / local:.3g} times as large (measured "
            f"{found['leave-one-out'].mean / found['local-expectation'].mean:.3g})",
            "local-expectation below, intervals apart",
            apart and local < other,
        )

    def crossing(self) -> Claim:
        """Where both are equal: of a cost that is all coupling leave-one-out is better."""
        ends = self.gap(0.0), self.gap(1.0)
        crosses = ends[0] < 0 < ends[1]
        where = float(brentq(self.gap, 0.0, 1.0, xtol=1e-4)) if crosses else math.nan
        local, other = (self.exact(name, self.costs.interaction) for name in self.samples)
        return Claim(
            f"{self.name}: the more coupled the cost, the worse for local-expectation",
            f"equal at a share of {where:.3f}, {local / other:.3g} times as large at 1",
            "below leave-one-out without coupling, above it at 1",
            crosses,
        )

    def gap(self, share: float) -> float:
        """Variance of local expectation less that of leave-one-out."""
        table = self.costs.mixed(share)
        return self.exact("local-expectation", table) - self.exact("leave-one-out", table)

    def panel(self) -> Panel:
        """Both against the share of the cost's variance that no sum explains."""
        curves = []
        line = [float(share) for share in np.geomspace(_SHARES[0], 1, 9)]
        for name, measured in self.mixtures.items():
            exact = [self.exact(name, self.costs.mixed(share)) for share in line]
            curves += [Curve(name, line, exact, exact=True), points(name, _SHARES, measured)]
        return Panel(self.name, "share of coupling", "variance", curves)
