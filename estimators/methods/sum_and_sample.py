"""REINFORCE with some configurations summed exactly, and one sampled from the rest."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import not_discrete, tied, variables_of
from ..pieces.without_replacement import most_likely, ordered_samples, possible, too_many
from ..posteriors.layered import Layered

SUMMED = ("most-likely", "drawn")


class SumAndSample(Estimator):
    r"""Sum over all but one of the samples: Σ_{c∈C} p_c f_c ∇_η log p_c + (1 − p_C) f(z) ∇_η log q(z).

    C holds S − 1 configurations of all variables together, p_c = q(z_c); z is drawn from q outside C. They
    are the most likely ones, or drawn themselves, without replacement: the mean over all orders of the set of
    S is then ``unordered-set``. Unbiased for any f; S evaluations of log p(x|z), none off the support; no
    derivatives. With S = 1 it is REINFORCE, with all K^D configurations the exact gradient.

    Use it where few configurations carry nearly all of the probability; elsewhere it is as noisy as
    ``score-function``: there is no baseline in it.

    Args:
        summed: "most-likely" or "drawn".
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> logits = torch.zeros(1, 3, requires_grad=True)
        >>> q = torch.distributions.OneHotCategorical(logits=logits)
        >>> estimate = create("sum-and-sample")(q, Target(lambda z: z @ torch.tensor([1.0, 2.0, 6.0])), 3)
        >>> torch.autograd.grad(estimate.surrogate.sum(), logits)[0]
        tensor([[-0.6667, -0.3333,  1.0000]])

    References:
        Liu, Regier, Tripuraneni, Jordan & McAuliffe, Rao-Blackwellized Stochastic Gradients for Discrete
        Distributions, 2019, section 3 (most-likely).
        Liang, Norouzi, Berant, Le & Lao, Memory Augmented Policy Optimization for Program Synthesis and
        Semantic Parsing, 2018, section 4.1.
        Kool, van Hoof & Welling, Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement, 2020, section 3.1 (drawn).
    """

    label = "sum-and-sample"
    weighs_kl = True
    draws = "coupled"

    def __init__(self, summed: str = "most-likely", kl: str = "analytic") -> None:
        super().__init__()
        self.summed = one_of("summed", summed, SUMMED)
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
        if self.summed == "most-likely":
            states = _first_outside(most_likely(variables, num_samples - 1), states)
        log_q = variables.log_prob(variables.one_hot(states)).detach().double()
        codes = variables.one_hot(possible(log_q, states))
        f = integrand_at(q, target, variables.z(codes), self.kl)
        weight = log_q.exp()
        rest = (1 - weight[:-1].sum(0)).clamp_min(0)
        weight = torch.cat((weight[:-1], rest.unsqueeze(0))).to(f.dtype)
        surrogate = (weight * f.detach() * variables.log_prob(codes)).sum(0)
        return tied(q, target, self.kl, (weight * f).sum(0), surrogate)


def _first_outside(
    summed: Int64[Tensor, "rest *batch D"], drawn: Int64[Tensor, "S *batch D"]
) -> Int64[Tensor, "S *batch D"]:
    """The configurations that are summed, and the first of S drawn ones that is not among them.

    Of samples without replacement the first outside a set is distributed as q is outside that set.
    """
    inside = (drawn.unsqueeze(1) == summed).all(-1).any(1)
    first = inside.int().argmin(0, keepdim=True).unsqueeze(-1).expand(1, *drawn.shape[1:])
    return torch.cat((summed, drawn.gather(0, first)))
