"""The path-derivative gradient: reparameterization without the score term."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.objective import integrand
from ..posteriors.distributions import cut, uncuttable
from ..posteriors.noise import log_prob, rsample
from .reparameterization import Reparameterization


class StickingTheLanding(Reparameterization):
    r"""Reparameterize log p(x, z) − log q(z), φ cut out of the parameters of log q.

    ĝ = (1/S) Σ_s J_sᵀ ∇_z [log p(x, z_s) − log q(z_s)], z_s = g(ε_s; η), J = ∂g/∂η. Unbiased for the ELBO
    when log p is differentiable in z: what is dropped from ``reparameterization[kl=sampled]``, the score
    −∇_η log q(z) at fixed z, has mean zero. S evaluations of log p(x|z), one backward pass through it.

    Where q is the exact posterior log p(x, z) − log q(z) is constant, and the variance zero: use it
    where q can come close. Far from there the dropped score may have been a good control variate, and
    the analytic KL be better. Without a prior there is no log q, and this is ``reparameterization``.

    Args:
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``reparameterization``.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> normal = lambda mean: torch.distributions.Independent(torch.distributions.Normal(mean, 1.0), 1)
        >>> loc = torch.zeros(4, 2, requires_grad=True)
        >>> target = Target(log_likelihood=lambda z: 0 * z.sum(-1), prior=normal(torch.zeros(2)))
        >>> estimate = create("sticking-the-landing")(normal(loc), target, num_samples=1)
        >>> torch.autograd.grad(estimate.surrogate.sum(), loc)[0].abs().max()
        tensor(0.)

    References:
        Roeder, Wu & Duvenaud, Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
        Variational Inference, 2017, eq. 5-8.
    """

    def __init__(self, draws: str = "iid") -> None:
        super().__init__(kl="sampled", draws=draws)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return uncuttable(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = rsample(q, num_samples, self.draws)
        elbo = integrand(q, target, z, self.kl, log_prob(cut(q), z, noise), noise).mean(0)
        return Estimate(surrogate=elbo, value=elbo)
