"""The exact gradient, where the posterior and the target allow one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..pieces.arguments import one_of, positive_integer
from ..pieces.objective import analytic_kl, integrand
from ..posteriors.distributions import closed_form_kl, describe
from ..posteriors.quadrature import (
    DEFAULT_NODES,
    MAX_DIMENSIONS,
    MAX_OUTCOMES,
    enumerate_outcomes,
    gauss_hermite,
    gaussian_dimension,
    outcomes,
)

METHODS = ("auto", "closed-form", "enumeration", "quadrature")


class Exact(Estimator):
    r"""Integrate instead of sampling: ∇_η E_q[f(z)] − ∇_η KL without Monte Carlo error.

    By the first of these that applies (``method="auto"``): the target's closed form
    (`Target.expectation`); Σ_z q(z) f(z) over all z of a discrete posterior (up to 4096 outcomes);
    tensor Gauss-Hermite quadrature under a Gaussian posterior of up to 3 dimensions. The draw count S
    is ignored and the variance is zero. Quadrature is exact for polynomials of degree 2·nodes − 1 and
    otherwise as good as f is smooth: compare two values of ``nodes`` before trusting it.

    Args:
        method: "auto", "closed-form", "enumeration" or "quadrature".
        nodes: quadrature nodes a dimension; None for 200, 64, 32 in 1, 2, 3 dimensions.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> zero = torch.zeros(1, 1, dtype=torch.float64)
        >>> q = torch.distributions.Independent(torch.distributions.Normal(zero, 2.0), 1)
        >>> create("exact")(q, Target(lambda z: z.square().sum(-1)), num_samples=1).value
        tensor([4.0000], dtype=torch.float64)

    References:
        Abramowitz & Stegun, Handbook of Mathematical Functions, 25.4.46 (Gauss-Hermite).
    """

    derivatives = 1
    deterministic = True

    def __init__(self, method: str = "auto", nodes: int | None = None) -> None:
        super().__init__()
        self.method = one_of("method", method, METHODS)
        self.nodes = None if nodes is None else positive_integer("nodes", nodes)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return super().supports(q, target, num_samples) or self._cannot(q, target)

    def _cannot(self, q: Distribution, target: Target) -> str | None:
        reasons = {
            "closed-form": None if target.expectation else "the target has no closed-form expectation",
            "enumeration": _cannot_enumerate(q),
            "quadrature": _cannot_integrate(q),
        }
        if self.method != "auto":
            return reasons[self.method]
        if None in reasons.values():
            return None
        return "; ".join(reason for reason in reasons.values() if reason)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        method = self._choose(q, target)
        if method == "closed-form":
            assert target.expectation is not None
            elbo = target.expectation(q) - analytic_kl(q, target, "analytic")
            return Estimate(surrogate=elbo, value=elbo)
        # The KL goes under the same weights only where torch has no closed form for it.
        kl = "analytic"
        if target.prior is not None and closed_form_kl(q, target.prior) is None:
            kl = "sampled"
        z, weights = self._points(q, method)
        log_q = q.log_prob(z)
        weights = log_q.exp() if method == "enumeration" else _column(weights, log_q)
        elbo = (weights * integrand(q, target, z, kl, log_q)).sum(0) - analytic_kl(q, target, kl)
        return Estimate(surrogate=elbo, value=elbo)

    def _choose(self, q: Distribution, target: Target) -> str:
        if self.method != "auto":
            return self.method
        if target.expectation is not None:
            return "closed-form"
        return "enumeration" if _cannot_enumerate(q) is None else "quadrature"

    def _points(
        self, q: Distribution, method: str
    ) -> tuple[Shaped[Tensor, "points *batch_event"], Float[Tensor, "weights"]]:
        if method == "enumeration":
            return enumerate_outcomes(q), torch.empty(0)
        reason = _cannot_integrate(q)
        if reason:
            raise UsageError(f"exact: {reason}")
        return gauss_hermite(q, self.nodes or DEFAULT_NODES[q.event_shape[0]])


def _column(
    weights: Float[Tensor, "points"], like: Float[Tensor, "points *batch"]
) -> Float[Tensor, "points *ones"]:
    return weights.reshape(-1, *(1,) * (like.dim() - 1))


def _cannot_enumerate(q: Distribution) -> str | None:
    count = outcomes(q)
    if count is None:
        return f"a {describe(q)} posterior cannot be enumerated"
    if count > MAX_OUTCOMES:
        return f"{count} outcomes are too many to enumerate (at most {MAX_OUTCOMES})"
    return None


def _cannot_integrate(q: Distribution) -> str | None:
    dimension = gaussian_dimension(q)
    if dimension is None:
        shape = tuple(q.event_shape)
        return f"quadrature needs a Gaussian posterior of event shape (D,), not a {describe(q)} of {shape}"
    if dimension > MAX_DIMENSIONS:
        return f"latent dimension {dimension} is too large for quadrature (at most {MAX_DIMENSIONS})"
    return None
