"""REINFORCE on what a first-order expansion at the mean leaves of f."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.objective import KL_CHOICES, unsupported_kl
from ..pieces.slopes import relaxed_integrand, with_slope
from ..pieces.variables import not_relaxable, tied, variables_of
from ..posteriors.distributions import draw


class MuProp(Estimator):
    r"""Score function of f less its Taylor expansion at z̄ = E z, whose own gradient is known and added back.

    In the logits of Bernoulli variables, z̄ = p, with g = ∂f/∂z at p,

        ĝ = (1/S) Σ_s (f(z_s) − f(p) − gᵀ(z_s − p)) (z_s − p) + p (1 − p) g − ∇_η KL

    and of categorical variables in one-hot code, with probabilities π, the same with π in place of p and
    (diag(π) − ππᵀ) g of each variable for p (1 − p) g. Unbiased for the ELBO however f is extended off the
    support. The variance is zero where f is linear; where f bends much between 0 and 1 the expansion adds
    noise, and then ``leave-one-out`` is better. S + 1 evaluations of log p(x|z), one of them at z̄ with a
    backward pass.

    With ``kl="sampled"`` f gains log p(z) − log q(z), linear between the states, which the expansion takes
    out again whole: the gradient is that of the closed form.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> logits = torch.zeros(4, 2, requires_grad=True)
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits), 1)
        >>> estimate = create("muprop")(q, Target(lambda z: 3 * z.sum(-1)), num_samples=1)
        >>> torch.autograd.grad(estimate.surrogate.sum(), logits)[0][0]
        tensor([0.7500, 0.7500])

    References:
        Gu, Levine, Sutskever & Mnih, MuProp: Unbiased Backpropagation for Stochastic Neural Networks, 2016,
        section 3.
    """

    derivatives = 1
    relaxes_target = True
    label = "muprop"
    weighs_kl = True

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or not_relaxable(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables = variables_of(q)
        codes, mean = variables.codes(draw(q, num_samples)), variables.probs
        f = relaxed_integrand(q, target, self.kl, variables, codes)
        centred = codes - mean
        at_mean, slope = (part[0].detach() for part in with_slope(q, target, self.kl, variables, mean[None]))
        linear = (slope * centred).sum((-2, -1))
        left = (f.detach() - at_mean - linear)[..., None, None]
        pathwise = mean * (slope - (mean * slope).sum(-1, keepdim=True))
        gradient = (left * centred).mean(0) + pathwise
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
