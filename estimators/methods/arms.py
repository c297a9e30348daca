"""Leave-one-out REINFORCE at several bits that avoid one another."""

from __future__ import annotations

import torch
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.copula import both_below, dirichlet_uniforms
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import not_binary, tied, variables_of
from ..posteriors.layered import Layered


class ARMS(Estimator):
    r"""Leave-one-out with antithetic samples: 1/(S−1) Σ_k (f_k − f̄) (b_k − p) · p(1 − p)/(p − P₁₁).

    b_k = 1[u_k < p], u_k = (1 − d_k)^{S−1}, d ~ Dirichlet(1_S), one for each bit; P₁₁ = P(b_k = b_l = 1) =
    max(2 p^{1/(S−1)} − 1, 0)^{S−1}. The factor makes up for pairs that differ more often than independent
    ones. Bits with p > ½ are drawn mirrored, as 1 − b of 1 − p, which keeps them further apart. Unbiased for
    any f; S evaluations of log p(x|z), none off the support; no derivatives. With S = 2 it is ``disarm``,
    draw by draw.

    Use it for Bernoulli latents at S > 2: a group of S samples mostly has less variance than S/2 pairs. Not
    where f(z) ≈ f(1 − z) and p ≈ ½: a pair then differs in nothing, and ``disarm`` has no variance.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("arms")(q, target, num_samples=3).surrogate.shape
        torch.Size([4])

    References:
        Dimitriev & Zhou, ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables, 2021,
        section 4.
    """

    min_samples = 2
    label = "arms"
    weighs_kl = True
    draws = "coupled"

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or not_binary(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        variables = variables_of(q)
        zero, one = variables.probs.double().unbind(-1)
        rare = torch.minimum(zero, one)
        below = dirichlet_uniforms(num_samples, rare.shape, rare) < rare
        bits = below ^ (one > zero)
        f = integrand_at(q, target, variables.z(variables.one_hot(bits.long())), self.kl)
        centred = f.detach() - f.detach().mean(0)
        loo = (centred.unsqueeze(-1) * (bits.to(one) - one)).sum(0) / (num_samples - 1)
        # p (1 − p)/(p − P₁₁), where a p of zero is never drawn.
        both = both_below(rare, num_samples) / rare.clamp_min(torch.finfo(rare.dtype).tiny)
        gradient = (loo * (1 - rare) / (1 - both)).to(f.dtype)
        surrogate = variables.surrogate(torch.stack((-gradient, gradient), -1))
        return tied(q, target, self.kl, f.mean(0), surrogate)
