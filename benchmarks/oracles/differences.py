"""A measured mean gradient less a reference, with the covariance of that as far as either route knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from ..jacobians.products import pull_back, push_forward
from ..jacobians.spectrum import largest_eigenvalue
from ..linalg import in_float64, times
from ..problems.protocol import Problem
from ..statistics.bias import bias_interval
from ..variance.result import VarianceResult
from .references import Reference, WholeReference, norm

#: Of a mean gradient, relative: what rounding, and the tolerance of a quadrature, may do to it.
_ROUNDING = {"float64": 1e-5}
_COARSE = 1e-4

#: A gradient by parameter.
Direction = dict[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """b̂ = E ĝ − ∇φ, in φ-space.

    Attributes:
        vector: b̂.
        gradient: ∇φ, of the reference.
        replicates: behind E ĝ.
        trace: of the covariance of b̂, reference and all.
        largest: its largest eigenvalue, or an upper bound.
        variance_along: of b̂ᵀw, or an upper bound, as a function of w.
        rounding: what arithmetic may do to b̂ besides, a norm.
    """

    vector: Direction
    gradient: Direction
    replicates: int
    trace: float
    largest: float
    variance_along: Callable[[Direction], float]
    rounding: float

    @property
    def squared_norm(self) -> float:
        """‖b̂‖²."""
        return norm(self.vector) ** 2

    def p_of_norm(self) -> float:
        """P(‖b̂‖² at least that large | no bias): F, as if b̂ had the fewest directions that it can have."""
        trace, largest = self.trace + self.rounding**2, self.largest + self.rounding**2
        if not trace > 0:
            return float(self.squared_norm == 0)
        dof = max(trace / largest, 1.0)  # tr² / (largest × tr), no more than tr² / tr of the square
        return float(stats.f.sf(self.squared_norm / trace, dof, max(self.replicates - 1, 1)))

    def p_along_gradient(self) -> float:
        """Two-sided, of the projection on ∇φ: the most powerful test for a multiple of the gradient."""
        along, variance = self.along(self.gradient)
        if not variance > 0:
            return float(along == 0)
        return float(2 * stats.t.sf(abs(along) / variance**0.5, max(self.replicates - 1, 1)))

    def direction(self) -> Direction:
        """Where this look finds the mean off: towards or against ∇φ, or along b̂, whichever is less likely."""
        if self.p_of_norm() <= self.p_along_gradient():
            return self.vector
        sign = 1.0 if dot(self.vector, self.gradient) > 0 else -1.0
        return {name: sign * g for name, g in self.gradient.items()}

    def along(self, direction: Direction) -> tuple[float, float]:
        """b̂ᵀw and its variance."""
        size = norm(direction)
        return dot(self.vector, direction), self.variance_along(direction) + (self.rounding * size) ** 2


@dataclass(frozen=True)
class Size:
    """‖∇φ‖ of a reference, debiased, with its 95% interval."""

    value: float
    low: float
    high: float


def difference_from(
    problem: Problem, x: Tensor, result: VarianceResult, reference: Reference | WholeReference
) -> Difference:
    """Of a result and a reference, one of the factorized route or both whole."""
    eps = _ROUNDING.get(str(result.case["dtype"]), _COARSE)
    n = result.replicates
    trace = result.total / n + reference.trace
    if isinstance(reference, WholeReference):
        vector = {name: in_float64(g) - in_float64(reference.mean[name]) for name, g in result.mean.items()}
        # Of the covariance the trace alone is known, which bounds what it is along any direction.
        return Difference(
            vector, reference.mean, n, trace, trace, lambda w: trace * norm(w) ** 2,
            eps * norm(reference.mean),
        )  # fmt: skip
    assert result.eta_mean is not None and result.eta_covariance is not None
    batch = len(x)
    covariance = result.eta_covariance / n
    if reference.trace > 0:
        covariance = covariance + reference.eta_covariance
    gradient = pull_back(problem.encoder, x, reference.eta_mean / batch)

    def variance_along(w: Direction) -> float:
        v = in_float64(push_forward(problem.encoder, x, w))
        return max(float((v * times(covariance, v)).sum()), 0.0) / batch**2

    return Difference(
        pull_back(problem.encoder, x, (result.eta_mean - reference.eta_mean) / batch),
        gradient,
        n,
        trace,
        largest_eigenvalue(problem, x, covariance),
        variance_along,
        eps * norm(gradient),
    )


def size_of(problem: Problem, x: Tensor, reference: Reference | WholeReference) -> Size:
    """How long the reference is, which a relative bias is relative to."""
    if isinstance(reference, WholeReference):
        gradient, largest = reference.mean, reference.trace
    else:
        gradient = pull_back(problem.encoder, x, reference.eta_mean / len(x))
        none = reference.trace == 0
        largest = 0.0 if none else largest_eigenvalue(problem, x, reference.eta_covariance)
    found, trace = norm(gradient), reference.trace
    if not trace > 0:
        return Size(found, found, found)
    low, high = bias_interval(found**2, trace, largest)
    return Size(max(found**2 - trace, trace) ** 0.5, low, high)


def dot(a: Direction, b: Direction) -> float:
    """aᵀb."""
    return sum(float((in_float64(g) * in_float64(b[name])).sum()) for name, g in a.items())
