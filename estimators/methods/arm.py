"""REINFORCE at antithetic pairs of bits, weighed by the uniform noise they share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.uniforms import open_uniform
from ..pieces.variables import not_binary, odd_number, tied, variables_of
from ..posteriors.layered import Layered


class ARM(Estimator):
    r"""Augment, REINFORCE, merge: (f(1[u > σ(−φ)]) − f(1[u < σ(φ)])) (u − ½), u uniform, one for each bit.

    Averaged over S/2 pairs. Unbiased for any f, which is evaluated at S samples and never off the support; no
    derivatives. ``disarm`` is its conditional expectation given the pair, at the same cost: use that. Of more
    than two states ``arsm`` is the generalization.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("arm")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Yin & Zhou, ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks, 2019, theorem 1.
    """

    min_samples = 2
    label = "arm"
    weighs_kl = True
    draws = "coupled"

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or odd_number(num_samples) or not_binary(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        variables = variables_of(q)
        zero, one = variables.probs.double().unbind(-1)
        u = open_uniform((num_samples // 2, *one.shape), one)
        z = torch.cat([variables.z(variables.one_hot(b.long())) for b in (u > zero, u < one)])
        f = integrand_at(q, target, z, self.kl)
        first, second = f.detach().chunk(2)
        gradient = ((first - second).unsqueeze(-1) * (u - 0.5).to(f.dtype)).mean(0)
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(_of_state_one(gradient)))


def _of_state_one(gradient: Tensor) -> Tensor:
    """The gradient in the logits of states 0 and 1 of a gradient in their difference."""
    return torch.stack((-gradient, gradient), -1)
