"""Leave-one-out with the other samples' slopes as a second control variate."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import number, one_of
from ..pieces.objective import KL_CHOICES, unsupported_kl
from ..pieces.slopes import with_slope
from ..pieces.tuning import squared_norm
from ..pieces.variables import not_relaxable, tied, variables_of
from ..posteriors.distributions import draw


class DoubleControlVariate(Estimator):
    r"""Leave-one-out on f plus a linear term, in the sample and in its baseline alike.

    In the logits of Bernoulli variables, with g = ∂f/∂z at the samples, of which no other points are needed,

        D_k = f(z_k) + α g_{−k}ᵀ(z_k − p),   g_{−k} = 1/(S−1) Σ_{j≠k} g(z_j)
        ĝ = (1/S) Σ_k (D_k − 1/(S−1) Σ_{j≠k} D_j) (z_k − p) − α p (1 − p) (1/S) Σ_k g(z_k) − ∇_η KL

    and of categorical variables in one-hot code with π in place of p and (diag(π) − ππᵀ) g of each variable
    for p (1 − p) g. Unbiased for the ELBO whatever α is and however f is extended off the support, because
    g_{−k} does not depend on z_k: iid draws only. S evaluations of log p(x|z), with one backward pass to z.

    α = 0 is ``leave-one-out``, where it starts; α = −1 has no variance where f is linear. It is learned:
    `aux_loss` is ‖ĝ‖² without the KL. For f that is smooth and close to linear over {0, 1}ᴰ; at p = ½ of many
    small terms there is little to gain.

    With ``kl="sampled"`` f gains log p(z) − log q(z), linear between the states.

    Args:
        alpha: initial α.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> logits = torch.zeros(4, 2, requires_grad=True)
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits), 1)
        >>> estimator = create("double-control-variate[alpha=-1]")
        >>> estimate = estimator(q, Target(lambda z: 3 * z.sum(-1)), num_samples=2)
        >>> torch.autograd.grad(estimate.surrogate.sum(), logits)[0][0]
        tensor([0.7500, 0.7500])

    References:
        Titsias & Shi, Double Control Variates for Gradient Estimation in Discrete Latent Variable Models,
        2022.
    """

    min_samples = 2
    requires_iid_draws = True
    derivatives = 1
    weighs_kl = True

    def __init__(self, alpha: float = 0.0, kl: str = "analytic") -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(number("alpha", alpha), dtype=torch.float64))
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or not_relaxable(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables = variables_of(q)
        codes, probs = variables.codes(draw(q, num_samples)), variables.probs
        f, slope = with_slope(q, target, self.kl, variables, codes)
        centred, others = codes - probs, num_samples - 1
        of_others = (slope.sum(0) - slope) / others
        linear = (of_others * centred).sum((-2, -1))
        mean_slope = slope.mean(0)
        correction = probs * (mean_slope - (probs * mean_slope).sum(-1, keepdim=True))

        def leave_one_out(values: torch.Tensor) -> torch.Tensor:
            return ((values - values.mean(0))[..., None, None] * centred).sum(0) / others

        plain, control = leave_one_out(f.detach()), leave_one_out(linear) - correction
        gradient = plain + self.alpha.to(control) * control
        estimate = tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
        return estimate._replace(aux_loss=squared_norm(variables, gradient)) if self.training else estimate
