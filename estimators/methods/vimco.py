"""The score-function gradient of the importance-weighted bound, with baselines from the other samples."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.importance_weights import log_sum_of_others, unweighable
from ..pieces.objective import integrand
from ..posteriors.distributions import no_score
from ..posteriors.noise import draw, log_prob

MEANS = ("geometric", "arithmetic")


class VIMCO(Estimator):
    r"""Credit each sample with what it adds to the bound: L̂ − L̂_{−k}, less its own ŵ_k.

    ĝ = Σ_k (L̂ − L̂_{−k} − ŵ_k) ∇_η log q(z_k), ŵ_k = w_k / Σ_l w_l the part that log w_k depends on φ itself,
    L̂ = log (1/K) Σ_k w_k, w_k = p(x, z_k) / q(z_k), K = S; in L̂_{−k} the weight w_k gives way to the mean of
    the others, which does not depend on z_k. Unbiased for L_K (objective "iwae") for any posterior and any
    f, discrete latents included; iid draws only; K evaluations of log p(x|z), no backward pass through it
    for φ.

    Use it for discrete latents under the importance-weighted bound. Where samples can be reparameterized,
    ``dreg`` has far less variance.

    Args:
        mean: of the others' weights: "geometric" (the mean of their logs) or "arithmetic".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> coin = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=coin)
        >>> create("vimco")(coin, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Mnih & Rezende, Variational Inference for Monte Carlo Objectives, 2016, eq. 7-10.
    """

    objective = "iwae"
    min_samples = 2
    requires_iid_draws = True
    label = "vimco"
    weighs_kl = True

    def __init__(self, mean: str = "geometric") -> None:
        super().__init__()
        self.mean = one_of("mean", mean, MEANS)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return unweighable(target) or no_score(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = draw(q, num_samples)
        log_q = log_prob(q, z, noise)
        log_w = integrand(q, target, z, "sampled", log_q.detach())
        bound = log_w.logsumexp(0) - math.log(num_samples)
        fixed = log_w.detach()
        credit = bound.detach() - self._without_each(fixed) - fixed.softmax(0)
        # Attached to φ by log q alone and to θ by log w alone, so that one tensor serves both.
        elbo = bound + (credit * (log_q - log_q.detach())).sum(0)
        return Estimate(surrogate=elbo, value=elbo)

    def _without_each(self, log_w: Float[Tensor, "S *batch"]) -> Float[Tensor, "S *batch"]:
        """L̂_{−k}, (S, *batch)."""
        k = len(log_w)
        others = log_sum_of_others(log_w)
        if self.mean == "arithmetic":
            return others - math.log(k - 1)
        stand_in = _sum_of_others(log_w) / (k - 1)
        return torch.logaddexp(others, stand_in) - math.log(k)


def _sum_of_others(log_w: Float[Tensor, "S *batch"]) -> Float[Tensor, "S *batch"]:
    """Σ_{l≠k} log w_l for every k, from the sums before and after k: −∞ less −∞ is no number."""
    nothing = torch.zeros_like(log_w[:1])
    before = torch.cat((nothing, log_w[:-1].cumsum(0)))
    return before + torch.cat((log_w[1:].flip(0).cumsum(0).flip(0), nothing))
