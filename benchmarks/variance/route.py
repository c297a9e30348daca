"""What draws replicates of a gradient and knows their variance: two routes, one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float64
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.posteriors.shared import shares_draws
from ..gradients import frozen
from ..jacobians.encoder import Jacobian
from ..problems.as_trained import eta_of
from ..problems.checks import check_trainable
from ..problems.protocol import Problem
from ..statistics.moments import Moments
from .breakdown import Breakdown
from .factorized import DirectPathError, FactorizedRoute
from .full import FullRoute
from .moments import Sums
from .signal import Sample

_LARGEST_GRAM = 2**26  # numbers


@runtime_checkable  # for the shapes' checks in the tests
class Route(Protocol):
    """An estimator at one point, of which replicates are drawn and their moments kept.

    What only one of the routes knows is None, or empty, on the other. Shapes: B data, K replicates kept,
    P coordinates of η.

    Attributes:
        name: as users call it.
        x: (B, ...).
        evaluations: of log p(x|z), a datum and estimate.
    """

    name: str
    x: Tensor
    evaluations: int

    @property
    def n(self) -> int:
        """Replicates so far."""
        ...

    @property
    def chunk(self) -> int | None:
        """Replicates that go through the decoder at once; None where each takes a pass of its own."""
        ...

    @property
    def jacobian(self) -> Jacobian | None:
        """The encoder's, which another route at the same problem and x need not compute again."""
        ...

    @property
    def sums(self) -> Sums | None:
        """What another stream merges."""
        ...

    def join(self, stream: int, merge: Sequence[Sums] = ()) -> None:
        """Become one of several streams of independent replicates, before any is drawn.

        Args:
            stream: its number.
            merge: sums of others, whose replicates count as drawn.

        Raises:
            UsageError: they do not fit, or the route keeps nothing that can be merged.
        """
        ...

    def add(self, replicates: int) -> None:
        """Draw more."""
        ...

    def repeats(self) -> bool:
        """Whether nothing but the estimator draws."""
        ...

    def total(self) -> Moments:
        """The total variance so far, with what its interval needs."""
        ...

    def kurtosis(self) -> float:
        """Kurtosis of a replicate's contribution to the total; 3 for a Gaussian, NaN when it is constant."""
        ...

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        ...

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        ...

    def breakdown(self) -> Breakdown:
        """Where the variance comes from."""
        ...

    def sample(self) -> Sample:
        """What is known of ĝ beyond its mean and total variance."""
        ...

    def eta_mean(self) -> Float64[Tensor, "B P"] | None:
        """E h."""
        ...

    def eta_covariance(self) -> Float64[Tensor, "B P P"] | None:
        """Cov(h_i)."""
        ...

    def contributions_kept(self) -> Float64[Tensor, "B K"] | None:
        """What each datum contributes to the total in the first replicates."""
        ...


def factorizes(eta: Tensor) -> bool:
    """Whether eta (B, P) has few enough coordinates for the factorized route's matrices (B, P, P)."""
    return eta.numel() * eta.shape[-1] <= _LARGEST_GRAM


def by_datum(problem: Problem, eta: Tensor) -> bool:
    """Whether the data of eta (B, P) can be looked at one by one: no draws are shared, and P is small."""
    return not shares_draws(problem.posterior(eta)) and factorizes(eta)


def choose_route(
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    *,
    wrt: str = "phi",
    route: str = "factorized",
    chunk: int | None = None,
    like: Route | None = None,
) -> Route:
    """The route asked for, or the full one where that is needed.

    Args:
        problem: as for `measure_variance`; these and those that follow.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        wrt: "phi" or "theta".
        route: "factorized" or "full".
        chunk: see `measure_variance`.
        like: another route on this problem and x, whose Jacobian is used again.

    That is where η is not all that φ enters through, where the data of a batch share their draws, and where η
    has so many coordinates that a matrix of them for each datum is too large.

    Raises:
        UsageError: there is nothing to differentiate with respect to.
    """
    side = "encoder" if wrt == "phi" else "decoder"
    check_trainable(problem, side)
    factorized = wrt == "phi" and route == "factorized" and not estimator.couples_batch
    if factorized and by_datum(problem, eta_of(problem, x)):
        jacobian = None if like is None else like.jacobian
        try:
            with frozen(problem.decoder):
                return FactorizedRoute(problem, estimator, x, num_samples, chunk, jacobian)
        except DirectPathError:
            pass  # the general route is right for such a posterior
    return FullRoute(problem, estimator, x, num_samples, wrt)
