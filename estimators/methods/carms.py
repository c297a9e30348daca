"""Leave-one-out REINFORCE at several categorical samples that avoid one another."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.copula import both_below, dirichlet_uniforms
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.sticks import Sticks, break_sticks
from ..pieces.variables import not_discrete, tied, variables_of
from ..posteriors.layered import Layered


class CARMS(Estimator):
    r"""Leave-one-out with antithetic samples: 1/(S(S−1)) Σ_{k<l} ρ_kl (f_k − f_l) (z_k − z_l).

    Every variable is spelled by K − 1 bits that break a stick, states in the order of their probability,
    smallest first; each bit is drawn S times by the copula of ``arms``. ρ_kl = π_a π_b / P(z_k = a, z_l = b),
    for each variable, makes up for pairs that differ more often than independent ones. In that order no bit
    has more than an even chance of being 1, so that every pair of states has a positive probability, which an
    unbiased estimate needs; the ratios are not clipped. With independent samples, ρ = 1, it is
    ``leave-one-out``; with two states ``arms``. Unbiased for any f; S evaluations of log p(x|z), none off the
    support; no derivatives.

    Use it for categorical latents, K small or moderate; the more states, the nearer it is to
    ``leave-one-out``.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> one_hot = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 2, 3))
        >>> q = torch.distributions.Independent(one_hot, 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum((-2, -1)))
        >>> create("carms")(q, target, num_samples=3).surrogate.shape
        torch.Size([4])

    References:
        Dimitriev & Zhou, CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator, 2021.
    """

    min_samples = 2
    label = "carms"
    weighs_kl = True
    draws = "coupled"

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
        sticks = break_sticks(variables._replace(kind="one-hot"))  # a Bernoulli variable in order, too
        place, same, differ = _draw(sticks, num_samples)
        codes = variables.one_hot(sticks.states(place))
        f = integrand_at(q, target, variables.z(codes), self.kl)
        values = f.detach()
        gradient = torch.zeros_like(codes[0])
        for k in range(num_samples):  # a row at a time: S² ratios for every variable may be too many
            ratio = _ratio(torch.minimum(place[k], place), same, differ).to(values.dtype)
            weight = (ratio * (values[k] - values).unsqueeze(-1)).sum(0)
            gradient = gradient + weight.unsqueeze(-1) * codes[k]
        gradient = gradient / (num_samples * (num_samples - 1))
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))


def _draw(
    sticks: Sticks, n: int
) -> tuple[Int64[Tensor, "n *batch D"], Float64[Tensor, "*batch D K"], Float64[Tensor, "*batch D K"]]:
    """Places of n samples in the order, and log ρ by where the first of a pair ends: before it, and there.

    Before it all bits are 0 in both; there it is 1 in one of them.
    """
    p = sticks.logits.detach().double().sigmoid()
    both = both_below(p, n)
    passed = 2 * torch.log1p(-p) - torch.log1p(both - 2 * p)
    nothing = torch.zeros_like(p[..., :1])
    # Behind the last bit a pair ends together, if it gets there at all: at p = ½ both cannot.
    same = torch.cat((nothing, passed[..., :-1].cumsum(-1), nothing), -1)
    parted = torch.log1p(-p) - torch.log1p(-both / p.clamp_min(torch.finfo(p.dtype).tiny))
    differ = torch.cat((parted, nothing), -1)
    return sticks.place(dirichlet_uniforms(n, p.shape, p) < p), same, differ


def _ratio(
    ended: Int64[Tensor, "n *batch D"],
    same: Float64[Tensor, "*batch D K"],
    differ: Float64[Tensor, "*batch D K"],
) -> Float64[Tensor, "n *batch D"]:
    """ρ of pairs whose first ends there; of pairs that end together anything finite."""
    logarithm = (same + differ).expand(*ended.shape, same.shape[-1])
    return logarithm.gather(-1, ended.unsqueeze(-1)).squeeze(-1).exp()
