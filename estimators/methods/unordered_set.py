"""REINFORCE at a set of different samples, averaged over the orders in which they may have been drawn."""

from __future__ import annotations

import torch
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import not_discrete, tied, variables_of
from ..pieces.without_replacement import inclusion, ordered_samples, possible, too_many
from ..posteriors.layered import Layered


class UnorderedSet(Estimator):
    r"""Samples without replacement: Σ_{s∈S} p_s R(S, s) (f_s − B_s) ∇_η log p_s.

    S different configurations of all variables together, p_s = q(z_s). R(S, s) = P(S∖s; D∖s)/P(S) is the
    leave-one-out ratio: given the set, p_s R is the probability that s was drawn first. B_s = p_s f_s +
    Σ_{s'≠s} p_s' R^{D∖s}(S, s') f_s' estimates E f from what was drawn after s. Unbiased for any f; S
    evaluations of log p(x|z), none off the support; no derivatives. With S = 1 it is REINFORCE, without a B;
    with all K^D configurations the exact gradient.

    Use it where a few configurations carry most of the probability: K^D small, or a posterior that is nearly
    certain. Where no configuration is likely to be drawn twice it is ``leave-one-out``.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> logits = torch.zeros(1, 3, requires_grad=True)
        >>> q = torch.distributions.OneHotCategorical(logits=logits)
        >>> estimate = create("unordered-set")(q, Target(lambda z: z @ torch.tensor([1.0, 2.0, 6.0])), 3)
        >>> torch.autograd.grad(estimate.surrogate.sum(), logits)[0]
        tensor([[-0.6667, -0.3333,  1.0000]])

    References:
        Kool, van Hoof & Welling, Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement, 2020, section 3.3 (with the built-in baseline).
    """

    label = "unordered-set"
    weighs_kl = True
    draws = "coupled"

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl, together=True)
        refused = super().supports(q, target, num_samples) or not_discrete(q)
        refused = refused or too_many(variables_of(q), num_samples)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl, together=True)
        variables = variables_of(q)
        states = ordered_samples(variables, num_samples)
        log_q = variables.log_prob(variables.one_hot(states))
        codes = variables.one_hot(possible(log_q, states))
        f = integrand_at(q, target, variables.z(codes), self.kl)
        first, second = (part.to(f.dtype) for part in inclusion(log_q))
        baseline = torch.einsum("st...,t...->s...", second, f.detach()) if num_samples > 1 else 0.0
        surrogate = (first * (f.detach() - baseline) * variables.log_prob(codes)).sum(0)
        return tied(q, target, self.kl, (first * f).sum(0), surrogate)
