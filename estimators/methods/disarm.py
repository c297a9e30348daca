"""REINFORCE at antithetic pairs of bits, with the noise that the pair does not fix averaged out."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.antithetic_bits import antithetic_pairs
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, unsupported_kl
from ..pieces.variables import not_discrete, odd_number, tied, variables_of
from ..posteriors.layered import Layered


class DisARM(Estimator):
    r"""Difference f over an antithetic pair: ½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|α|).

    b = 1[u > 1 − σ(α)] and b̃ = 1[u < σ(α)] with one u a bit, α the bit's logit: the conditional expectation
    of ``arm`` given the pair, hence never noisier. Averaged over S/2 pairs. Unbiased for any f, which is
    evaluated at S samples and never off the support; no derivatives.

    A K-ary variable is spelled by K − 1 bits that break a stick, states in the order of their probability,
    smallest first; bits behind the end of both samples change neither and are left out.

    Use it for Bernoulli latents; at equal evaluations ``leave-one-out`` is noisier there. Of K-ary latents
    most pairs differ in few bits: compare ``carms``.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("disarm")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Dong, Mnih & Tucker, DisARM: An Antithetic Gradient Estimator for Binary Latent Variables, 2020,
        section 3.
        Yin, Ho, Yan, Qian & Zhou, Probabilistic Best Subset Selection via Gradient-Based Optimization, 2020
        (U2G).
        Dong, Mnih & Tucker, Coupled Gradient Estimators for Discrete Latent Variables, 2021 (stick-breaking).
    """

    min_samples = 2
    label = "disarm"
    weighs_kl = True
    draws = "coupled"

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or odd_number(num_samples) or not_discrete(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        pairs = antithetic_pairs(variables_of(q), num_samples // 2)
        f, mirrored = pairs.integrands(q, target, self.kl)
        half = 0.5 * (f - mirrored).detach()
        gradient = (half[..., None, None] * pairs.credit).mean(0)
        return tied(q, target, self.kl, 0.5 * (f + mirrored).mean(0), pairs.surrogate(gradient))
