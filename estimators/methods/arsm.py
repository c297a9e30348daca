"""REINFORCE for categorical variables at swapped noise: ARM for more than two states."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import Variables, not_discrete, tied, variables_of
from ..posteriors.layered import Layered

_MOST_STATES = 100  # 4951 evaluations a sample


class ARSM(Estimator):
    r"""Augment, REINFORCE, swap, merge: (1/K) Σ_j (f^{c⇌j} − f̄^j) (1 − K ϖ_j) in the logit φ_c.

    ϖ ~ Dirichlet(1_K), one for each variable; f^{c⇌j} = f(z^{c⇌j}), z^{c⇌j} = argmin_k (log ϖ_k^{c⇌j} − φ_k)
    in every variable, with ϖ_c and ϖ_j swapped; f̄^j = (1/K) Σ_m f^{m⇌j}. Averaged over S draws of ϖ. Unbiased
    for any f; S (K (K − 1)/2 + 1) evaluations of log p(x|z) whatever D is, none off the support; no
    derivatives. `value` averages over the S samples without a swap. With K = 2 it is ``arm``, whose S counts
    both samples of a pair.

    Use it where K is small; evaluations grow with its square, and K above 100 is refused.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> one_hot = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 2, 3))
        >>> q = torch.distributions.Independent(one_hot, 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum((-2, -1)))
        >>> create("arsm")(q, target, num_samples=1).surrogate.shape
        torch.Size([4])

    References:
        Yin, Yue & Zhou, ARSM: Augment-REINFORCE-Swap-Merge Estimator for Gradient Backpropagation Through
        Categorical Variables, 2019, theorem 1.
    """

    label = "arsm"
    weighs_kl = True

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or not_discrete(q)
        if refused is None and (states := variables_of(q).states) > _MOST_STATES:
            return (
                f"evaluates K(K - 1)/2 + 1 times a sample, hence {_MOST_STATES} states at most, not {states}"
            )
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        variables = variables_of(q)
        k, logits = variables.states, variables.logits.detach()
        clocks = torch.empty(num_samples, *logits.shape, dtype=torch.float64, device=logits.device)
        clocks.exponential_()
        varpi = clocks / clocks.sum(-1, keepdim=True)
        f = integrand_at(q, target, _first(variables, clocks.log()), self.kl)
        c, j = torch.triu_indices(k, k, 1, device=logits.device)
        with torch.no_grad():
            z = torch.cat([_first(variables, swapped) for swapped in _swaps(clocks.log(), c, j)])
            others = integrand_at(q, target, z, self.kl).reshape(len(c), *f.shape)
        swapped_f = f.detach().expand(k, k, *f.shape).clone()  # f^{c⇌j}; without a swap where c = j
        swapped_f[c, j] = swapped_f[j, c] = others
        centred = swapped_f - swapped_f.mean(0)
        weights = (1 - k * varpi).to(f.dtype)
        gradient = torch.einsum("cjs...,s...dj->...dc", centred, weights) / (k * num_samples)
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))


def _first(
    variables: Variables, log_clocks: Float[Tensor, "S *batch D K"]
) -> Shaped[Tensor, "S *batch_event"]:
    """z whose states are those of the clocks, of rates exp(φ), that ring first."""
    return variables.z(variables.one_hot((log_clocks - variables.logits.detach()).argmin(-1)))


def _swaps(log_clocks: Tensor, c: Tensor, j: Tensor) -> list[Tensor]:
    """The noise with the entries of each pair of states swapped."""
    states = torch.arange(log_clocks.shape[-1], device=log_clocks.device).repeat(len(c), 1)
    row = torch.arange(len(c), device=log_clocks.device)
    states[row, c], states[row, j] = j, c
    return [log_clocks[..., order] for order in states]
