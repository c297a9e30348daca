"""The score-function gradient of the importance-weighted bound, with nearly optimal control variates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..pieces.arguments import number, one_of, positive_integer
from ..pieces.importance_weights import log_sum_of_others, unweighable
from ..pieces.objective import integrand
from ..posteriors.distributions import no_score
from ..posteriors.noise import draw, log_prob

FORMS = ("monte-carlo", "asymptotic")


class OVIS(Estimator):
    r"""Take from each score's weight its mean over that sample alone: Σ_k (d_k − c_k) ∇_η log q(z_k).

    d_k = L̂ − ŵ_k, L̂ = log (1/K) Σ_l w_l, ŵ_k = w_k / Σ_l w_l, w_k = p(x, z_k) / q(z_k), K = S. Objective
    "iwae"; any posterior and any f, discrete latents included; iid draws only; no backward pass through
    log p(x|z) for φ. Two forms of c_k ≈ E[d_k | z_l, l ≠ k], with L̂_{−k} = log (1/(K−1)) Σ_{l≠k} w_l:

    - "monte-carlo": (1/A) Σ_a d_k with z_k replaced by an auxiliary sample z'_a, the same A for all k.
      Independent of z_k, hence unbiased; K + A evaluations of log p(x|z). Its variance exceeds that
      of the conditional mean by a part that falls like 1/A.
    - "asymptotic": L̂_{−k} − γ ŵ_k + (1 − γ) log(1 − 1/K); K evaluations, K ≥ 2. γ = 0 (the limit of a small
      effective sample size) does not depend on z_k, hence is unbiased. ŵ_k does: with γ > 0 the mean is
      ∇_η L_K + γ E Σ_k ŵ_k ∇_η log q(z_k), and what is added, the wake-φ step of
      ``reweighted-wake-sleep``, does not shrink as K grows while ∇_η L_K falls like 1/K. γ = 1, published for
      a large effective sample size, is declared biased here.

    Use it, or ``vimco``, for discrete latents under the importance-weighted bound; where samples can be
    reparameterized ``dreg`` has far less variance. γ = 1 climbs the other objective for the most part.

    Args:
        form: "monte-carlo" or "asymptotic".
        auxiliary: A, of the form "monte-carlo"; 4 when not given.
        gamma: γ from 0 to 1, of the form "asymptotic"; 0 when not given.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> coin = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=coin)
        >>> create("ovis")(coin, target, num_samples=10).surrogate.shape
        torch.Size([4])
        >>> create("ovis[form=asymptotic,gamma=1]").unbiased
        False

    References:
        Liévin, Dittadi, Christensen & Winther, Optimal Variance Control of the Score Function Gradient
        Estimator for Importance Weighted Bounds, 2020, eq. 12 (monte-carlo), 17 (asymptotic).
    """

    objective = "iwae"
    requires_iid_draws = True
    label = "ovis"
    weighs_kl = True

    def __init__(
        self, form: str = "monte-carlo", auxiliary: int | None = None, gamma: float | None = None
    ) -> None:
        super().__init__()
        self.form = one_of("form", form, FORMS)
        for name, value, owner in (("auxiliary", auxiliary, FORMS[0]), ("gamma", gamma, FORMS[1])):
            if value is not None and form != owner:
                raise UsageError(f"{name} is of form={owner}, not of form={form}")
        self.auxiliary = positive_integer("auxiliary", 4 if auxiliary is None else auxiliary)
        self.gamma = number("gamma", 0.0 if gamma is None else gamma)
        if not 0 <= self.gamma <= 1:
            raise UsageError(f"gamma={gamma!r} is not between 0 and 1")
        self.min_samples = 1 if form == "monte-carlo" else 2
        self.unbiased = self.gamma == 0

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return unweighable(target) or no_score(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = draw(q, num_samples)
        log_q = log_prob(q, z, noise)
        log_w = integrand(q, target, z, "sampled", log_q.detach())
        bound = log_w.logsumexp(0) - math.log(num_samples)
        fixed = log_w.detach()
        if self.form == "monte-carlo":
            control = self._averaged(fixed, self._auxiliary_weights(q, target))
        else:
            control = self._asymptotic(fixed)
        credit = bound.detach() - fixed.softmax(0) - control
        # Attached to φ by log q alone and to θ by log w alone, so that one tensor serves both.
        elbo = bound + (credit * (log_q - log_q.detach())).sum(0)
        return Estimate(surrogate=elbo, value=elbo)

    @torch.no_grad()
    def _auxiliary_weights(self, q: Distribution, target: Target) -> Float[Tensor, "A *batch"]:
        """log w of the auxiliary samples, (A, *batch)."""
        z, noise = draw(q, self.auxiliary)
        return integrand(q, target, z, "sampled", log_prob(q, z, noise))

    def _averaged(
        self, log_w: Float[Tensor, "K *batch"], auxiliary: Float[Tensor, "A *batch"]
    ) -> Float[Tensor, "K *batch"]:
        """(1/A) Σ_a d_k with w_k replaced by the a-th auxiliary weight, (K, *batch)."""
        drawn = auxiliary.unsqueeze(1)
        total = torch.logaddexp(log_sum_of_others(log_w), drawn)  # (A, K, *batch)
        return (total - math.log(len(log_w)) - (drawn - total).exp()).mean(0)

    def _asymptotic(self, log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
        """L̂_{−k} − γ ŵ_k + (1 − γ) log(1 − 1/K), (K, *batch)."""
        k = len(log_w)
        without = log_sum_of_others(log_w) - math.log(k - 1)
        return without - self.gamma * log_w.softmax(0) + (1 - self.gamma) * math.log1p(-1 / k)
