"""The importance-weighted bound's gradient for discrete latents, each sample against its mirror image."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.antithetic_bits import antithetic_pairs
from ..pieces.importance_weights import log_sum_of_others, unweighable
from ..pieces.variables import not_discrete, variables_of
from ..posteriors.layered import not_one_latent


class LocalDisARM(Estimator):
    r"""DisARM in each slot of the bound: Σ_k ½ (d_k − d̃_k) (−1)^b̃ 1[b ≠ b̃] σ(|α|), d_k = L̂ − ŵ_k.

    L̂ = log (1/K) Σ_k w_k, w_k = p(x, z_k)/q(z_k), K = S, ŵ_k = w_k/Σ_l w_l; in d̃_k the sample z_k gives way
    to its antithetic partner z̃_k, see ``disarm``. The gradient of the bound is E Σ_k d_k ∇_η log q(z_k): L̂ by
    the samples, ŵ_k by what w_k depends on φ itself. Unbiased for L_K (objective "iwae") for any f, Bernoulli
    and, by stick-breaking, K-ary latents; 2K evaluations of log p(x|z), none off the support; no derivatives.
    `value` is L̂ of the K samples, without their partners.

    Use it, or ``vimco`` with 2K samples, for discrete latents under the importance-weighted bound.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> coin = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=coin)
        >>> create("local-disarm")(coin, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Dong, Mnih & Tucker, DisARM: An Antithetic Gradient Estimator for Binary Latent Variables, 2020, on
        multi-sample bounds.
    """

    objective = "iwae"
    label = "local-disarm"
    weighs_kl = True

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = not_one_latent(q, "vimco") or unweighable(target) or not_discrete(q)
        return refused or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        pairs = antithetic_pairs(variables_of(q), num_samples)
        log_w, mirrored = pairs.integrands(q, target, "sampled")
        fixed, partner = log_w.detach(), mirrored.detach()
        others = log_sum_of_others(fixed)
        half = 0.5 * (_credit(fixed, others) - _credit(partner, others))
        surrogate = pairs.surrogate((half[..., None, None] * pairs.credit).sum(0))
        # Attached to φ by the bits and to θ by log w, so that one tensor serves both.
        bound = log_w.logsumexp(0) - math.log(num_samples) + surrogate - surrogate.detach()
        return Estimate(surrogate=bound, value=bound)


def _credit(log_w: Float[Tensor, "K *batch"], others: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
    """d_k = L̂ − ŵ_k, (K, *batch), but for log K, each slot holding this weight beside the others."""
    total = torch.logaddexp(log_w, others)
    return total - (log_w - total).exp()
