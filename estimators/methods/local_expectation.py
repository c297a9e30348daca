"""REINFORCE with each variable summed out in turn, the others sampled."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.alternatives import at_every_state
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import not_discrete, tied, variables_of
from ..posteriors.layered import Layered
from ..posteriors.noise import draw


class LocalExpectation(Estimator):
    r"""Sum over the states of a variable: π_k (f_k − Σ_j π_j f_j), f_k = f(z with the variable in state k).

    Of each of the D variables in turn, while the others are sampled; of a Bernoulli variable, s = p(1 − p),
    it is s (f(zᵢ = 1) − f(zᵢ = 0)). Averaged over S samples. Unbiased for any f, and exact where f is a sum
    of functions of one variable each, D = 1 among them. S (1 + D (K − 1)) evaluations of log p(x|z), none off
    the support; no derivatives. `value` averages over the S samples alone.

    Use it where D (K − 1) evaluations are cheap, or f nearly additive. At equal evaluations
    ``leave-one-out`` has D (K − 1) + 1 times the samples.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> p = torch.tensor([[0.3, 0.6]], requires_grad=True)
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(p), 1)
        >>> estimate = create("local-expectation")(q, Target(lambda z: z @ torch.tensor([2.0, 5.0])), 1)
        >>> torch.autograd.grad(estimate.surrogate.sum(), p)[0]
        tensor([[2.0000, 5.0000]])

    References:
        Titsias & Lázaro-Gredilla, Local Expectation Gradients for Black Box Variational Inference, 2015.
        Tokui & Sato, Evaluating the Variance of Likelihood-Ratio Gradient Estimators, 2017 (RAM).
        De Smet, Sansone & Zuidberg Dos Martires, Differentiable Sampling of Categorical Distributions Using
        the CatLog-Derivative Trick, 2023 (IndeCateR).
    """

    weighs_kl = True

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or not_discrete(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        variables = variables_of(q)
        z, _ = draw(q, num_samples)
        f = integrand_at(q, target, z, self.kl)
        states = at_every_state(q, target, self.kl, variables, variables.codes(z), f)
        average = (variables.probs * states).sum(-1, keepdim=True)
        gradient = (variables.probs * (states - average)).mean(0)
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
