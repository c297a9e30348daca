"""The thermodynamic variational objective, and its covariance gradient."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..pieces.arguments import positive_integer, positive_number
from ..pieces.importance_weights import unweighable
from ..pieces.objective import integrand
from ..posteriors.distributions import no_score
from ..posteriors.noise import draw, log_prob


class Thermodynamic(Estimator):
    r"""Sum E[log w] along the path from q to p(z|x): Σ_p (β_{p+1} − β_p) E_{π_β}[log w], at β = β_p.

    π_β ∝ q^{1−β} p(x, z)^β, w = p(x, z) / q(z); 0 = β_0 < β_1 < … < β_P = 1 with β_1 = ``smallest`` and the
    others log-spaced up to 1: the left Riemann sum of an integral that is log p(x), hence a lower bound of
    that, and no lower than the ELBO. Every partition is an objective of its own:
    "thermodynamic[partitions=P,smallest=β_1]".

    ∇ E_π[f] = E_π[∇f] + Cov_π(∇ log π̃, f), f = log w, log π̃ = (1 − β) log q + β log p(x, z), for η and θ
    alike. E_π is Σ_k w̄_k(·), w̄_k ∝ w_k^β, over the same K = S samples of q for every β, Cov_π the weighted
    covariance times K/(K−1): biased at finite K, by O(1/K), in η, in θ and in `value`. At
    β = 0 E_π[∇_η f] = −E_q[∇_η log q(z)] is zero and left out. P = 1 is then ``leave-one-out[kl=sampled]``,
    sample by sample, and unbiased for the ELBO, which it declares. Any posterior and any f, discrete latents
    included; iid draws, K ≥ 2; K evaluations of log p(x|z), no backward pass through it for φ.

    Use it for discrete latents with K large where a bound tighter than the ELBO is wanted; with K small take
    ``vimco``, which is unbiased for a bound that rises with K by itself.

    Args:
        partitions: P, terms of the sum.
        smallest: β_1, between 0 and 1; of no account when P = 1.

    Example:
        >>> from elbograd.estimators import create
        >>> estimator = create("thermodynamic[partitions=3,smallest=0.01]")
        >>> [round(beta, 4) for beta in estimator.betas]
        [0.0, 0.01, 0.1, 1.0]
        >>> estimator.objective
        'thermodynamic[partitions=3,smallest=0.01]'

    References:
        Masrani, Le & Wood, The Thermodynamic Variational Objective, 2019: the left Riemann sum, its
        covariance gradient and the log-spaced partition.
    """

    min_samples = 2
    requires_iid_draws = True
    weighs_kl = True

    def __init__(self, partitions: int = 5, smallest: float = 0.1) -> None:
        super().__init__()
        self.partitions = positive_integer("partitions", partitions)
        self.smallest = positive_number("smallest", smallest)
        if not self.smallest < 1:
            raise UsageError(f"smallest={smallest!r} is not between 0 and 1")
        self.betas = partition(self.partitions, self.smallest)
        if self.partitions > 1:
            self.objective = f"thermodynamic[partitions={partitions},smallest={self.smallest}]"
            self.unbiased = self.unbiased_value = False

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return unweighable(target) or no_score(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = draw(q, num_samples)
        log_q = log_prob(q, z, noise)
        f = integrand(q, target, z, "sampled", log_q)
        terms = [
            (following - beta) * self.expectation(log_q, f, beta) for beta, following in pairwise(self.betas)
        ]
        value = torch.stack(terms).sum(0)
        return Estimate(surrogate=value, value=value)

    def expectation(
        self, log_q: Float[Tensor, "K *batch"], f: Float[Tensor, "K *batch"], beta: float
    ) -> Float[Tensor, "*batch"]:
        """E_π[log w] at β with its covariance gradient, (*batch), from log q and log w (K, *batch)."""
        fixed = f.detach()
        weights = (beta * fixed).softmax(0)
        deviation = fixed - (weights * fixed).sum(0)
        log_tempered = self.tempered(log_q, f, beta)
        # Less its own value, log π̃ adds its gradient to the covariance and nothing else.
        covariance = (weights * deviation * (log_tempered - log_tempered.detach())).sum(0)
        direct = f if beta > 0 else f + log_q - log_q.detach()  # without the score
        return (weights * direct).sum(0) + covariance * (len(f) / (len(f) - 1))

    def tempered(
        self, log_q: Float[Tensor, "K *batch"], f: Float[Tensor, "K *batch"], beta: float
    ) -> Float[Tensor, "K *batch"]:
        """log π̃ = (1 − β) log q + β log p(x, z) = log q + β log w, (K, *batch)."""
        return log_q + beta * f


def partition(partitions: int, smallest: float) -> tuple[float, ...]:
    """0 = β_0 < β_1 = smallest < … < β_P = 1, log-spaced from β_1 on.

    >>> partition(1, 0.1), partition(2, 0.1)
    ((0.0, 1.0), (0.0, 0.1, 1.0))
    """
    steps = range(partitions - 1)
    return (0.0, *(smallest ** (1 - i / (partitions - 1)) for i in steps), 1.0)
