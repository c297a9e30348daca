"""The reparameterized gradient of the importance-weighted bound."""

from __future__ import annotations

import math

from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.importance_weights import unweighable
from ..pieces.objective import integrand
from ..posteriors.noise import rsample
from .reparameterization import Reparameterization


class IWAE(Reparameterization):
    r"""Differentiate log of the mean of K importance weights, K = S: the bound of the IWAE.

    L_K = E[log (1/K) Σ_k w_k], w_k = p(x, z_k) / q(z_k), z_k = g(ε_k; η), and
    ĝ = Σ_k ŵ_k ∇_η log w_k with ŵ_k = w_k / Σ_l w_l, the derivatives total ones. Unbiased for L_K (objective
    "iwae") when log p is differentiable in z; K evaluations of log p(x|z), one backward pass through them.

    L_1 is the ELBO, and L_K rises to log p(x): use it where the bound counts, and the posterior is poor.
    It is no estimate of the ELBO's gradient for K > 1. Its signal-to-noise ratio in φ falls like 1/√K.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=normal)
        >>> create("iwae")(normal, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, eq. 8 (the bound), 13-14.
        Rainforth et al., Tighter Variational Bounds Are Not Necessarily Better, 2018 (signal to noise).
    """

    objective = "iwae"
    requires_iid_draws = True

    def __init__(self) -> None:
        super().__init__(kl="sampled")

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return unweighable(target) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = rsample(q, num_samples)
        log_weights = integrand(q, target, z, self.kl, noise=noise)
        bound = log_weights.logsumexp(0) - math.log(num_samples)
        return Estimate(surrogate=bound, value=bound)
