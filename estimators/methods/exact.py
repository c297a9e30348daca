"""The exact gradient, where the posterior and the target allow one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..kl_weight import FreeBits
from ..pieces.arguments import one_of, positive_integer
from ..pieces.enumeration import expected
from ..pieces.objective import analytic_kl, integrand, unsupported_kl, whole_kl
from ..posteriors.distributions import describe
from ..posteriors.layered import Layered
from ..posteriors.outcomes import outcomes, too_many
from ..posteriors.quadrature import DEFAULT_NODES, MAX_DIMENSIONS, gauss_hermite, gaussian_dimension

METHODS = ("auto", "closed-form", "enumeration", "quadrature")


class Exact(Estimator):
    r"""Integrate instead of sampling: ∇_η E_q[f(z)] − ∇_η KL without Monte Carlo error.

    By the first of these that applies (``method="auto"``): the target's closed form
    (`Target.expectation`); Σ_z q(z) f(z) over all z of a posterior whose support is finite, its variables
    independent or not (up to 2²⁰ outcomes, a bounded number of them at a time); tensor Gauss-Hermite
    quadrature under a Gaussian posterior of up to 3 dimensions. The draw count S is ignored and the variance
    is zero. Quadrature is exact for polynomials of degree 2·nodes − 1 and
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
    weighs_kl = True

    def __init__(self, method: str = "auto", nodes: int | None = None) -> None:
        super().__init__()
        self.method = one_of("method", method, METHODS)
        self.nodes = None if nodes is None else positive_integer("nodes", nodes)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or self._cannot(q, target)
        if refused or (self._choose(q, target) == "closed-form" and whole_kl(q, target) is not None):
            return refused
        return unsupported_kl(q, target, self._kl(q, target))

    def _cannot(self, q: Distribution, target: Target) -> str | None:
        reasons = {
            "closed-form": _no_closed_form(q, target),
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
            divergence = whole_kl(q, target)
            # What has none says so.
            elbo = target.expectation(q) - (analytic_kl(q, target) if divergence is None else divergence)
            return Estimate(surrogate=elbo, value=elbo)
        kl = self._kl(q, target)
        if method == "enumeration":
            integral = expected(q, target, kl)
        else:
            z, weights = gauss_hermite(q, self._nodes(q))
            log_q = q.log_prob(z)
            integral = (_column(weights, log_q) * integrand(q, target, z, kl, log_q)).sum(0)
        elbo = integral - analytic_kl(q, target, kl)
        return Estimate(surrogate=elbo, value=elbo)

    def _kl(self, q: Distribution, target: Target) -> str:
        """Under the same weights as f only where there is no closed form for the KL."""
        closed = unsupported_kl(q, target, "analytic") is None or self._choose(q, target) == "closed-form"
        return "analytic" if closed or isinstance(target.kl_weight, FreeBits) else "sampled"

    def _choose(self, q: Distribution, target: Target) -> str:
        if self.method != "auto":
            return self.method
        if _no_closed_form(q, target) is None:
            return "closed-form"
        return "enumeration" if _cannot_enumerate(q) is None else "quadrature"

    def _nodes(self, q: Distribution) -> int:
        reason = _cannot_integrate(q)
        if reason:
            raise UsageError(f"exact: {reason}")
        return self.nodes or DEFAULT_NODES[q.event_shape[0]]


def _column(
    weights: Float[Tensor, "points"], like: Float[Tensor, "points *batch"]
) -> Float[Tensor, "points *ones"]:
    return weights.reshape(-1, *(1,) * (like.dim() - 1))


def _no_closed_form(q: Distribution, target: Target) -> str | None:
    if target.expectation is None:
        return "the target has no closed-form expectation"
    if isinstance(q, Layered) and whole_kl(q, target) is None:
        return "the KL of latents drawn given others has no closed form as a whole"
    return None


def _cannot_enumerate(q: Distribution) -> str | None:
    if outcomes(q) is None:
        return f"a {describe(q)} posterior cannot be enumerated"
    return too_many(q)


def _cannot_integrate(q: Distribution) -> str | None:
    dimension = gaussian_dimension(q)
    if dimension is None:
        shape = tuple(q.event_shape)
        return f"quadrature needs a Gaussian posterior of event shape (D,), not a {describe(q)} of {shape}"
    if dimension > MAX_DIMENSIONS:
        return f"latent dimension {dimension} is too large for quadrature (at most {MAX_DIMENSIONS})"
    return None
