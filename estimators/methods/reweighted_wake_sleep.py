"""The wake-φ step of reweighted wake-sleep: from the posterior's side of the KL divergence."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.importance_weights import unweighable
from ..pieces.objective import integrand
from ..posteriors.distributions import no_score
from ..posteriors.noise import draw, log_prob
from .dreg import DReG

FORMS = ("score", "doubly-reparameterized")


class ReweightedWakeSleep(DReG):
    r"""Fit q to the weighted samples: ĝ = Σ_k ŵ_k ∇_η log q(z_k), z_k held fixed, K = S.

    ŵ_k = w_k / Σ_l w_l, w_k = p(x, z_k) / q(z_k). The direction of ascent on −KL(p(z|x) ‖ q), whose gradient
    is E_{p(z|x)}[∇_η log q(z)] (papers write the KL and descend: the sign is the other one); objective
    "inclusive-kl". ŵ is normalized by the samples' own sum, hence biased at finite K, by O(1/K); at K = 1 the
    mean is zero whatever the posterior, so K ≥ 2. `value` is L̂_K = log (1/K) Σ_k w_k, the importance-weighted
    bound, and its θ-gradient Σ_k ŵ_k ∇_θ log p(x, z_k) the wake-θ step: φ and θ climb two objectives.

    Two forms with one expectation at every K, hence one bias: "score" as above, for any posterior and any f,
    discrete latents included, no backward pass through log p(x|z) for φ; "doubly-reparameterized", Σ_k
    (ŵ_k − ŵ_k²) J_kᵀ ∇_z log w_k, J = ∂g/∂η, φ cut out of the parameters of log q, when log p is
    differentiable in z, a backward pass for φ and another for θ. K evaluations of log p(x|z) either way.

    Use it where q should cover the posterior and not sit on one mode of it, and for discrete latents with
    K large; not with K small, where the bias points back to q itself.

    Args:
        form: "score" or "doubly-reparameterized".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> coin = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=coin)
        >>> create("reweighted-wake-sleep")(coin, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Bornschein & Bengio, Reweighted Wake-Sleep, 2015, section 2 (wake-φ and wake-θ).
        Le, Kosiorek, Siddharth, Teh & Wood, Revisiting Reweighted Wake-Sleep, 2019.
        Tucker, Lawson, Gu & Maddison, Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives,
        2019, on reweighted wake-sleep (RWS-DReG).
    """

    objective = "inclusive-kl"
    unbiased = False
    min_samples = 2
    label = "reweighted-wake-sleep"

    def __init__(self, form: str = "score") -> None:
        super().__init__()
        self.form = one_of("form", form, FORMS)
        self.derivatives = 0 if form == "score" else 1

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if self.form == "score":
            refused = unweighable(target) or no_score(q)
            return refused or Estimator.supports(self, q, target, num_samples)
        return super().supports(q, target, num_samples)

    def weigh(self, normalized: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
        return normalized - normalized.square()

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if self.form != "score":
            return super().forward(q, target, num_samples)
        z, noise = draw(q, num_samples)
        log_q = log_prob(q, z, noise)
        log_w = integrand(q, target, z, "sampled", log_q.detach())
        wake_phi = (log_w.detach().softmax(0) * (log_q - log_q.detach())).sum(0)
        # Attached to φ by log q alone and to θ by log w alone, so that one tensor serves both.
        bound = log_w.logsumexp(0) - math.log(num_samples) + wake_phi
        return Estimate(surrogate=bound, value=bound)
