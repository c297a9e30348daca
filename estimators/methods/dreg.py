"""The doubly reparameterized gradient of the importance-weighted bound."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.importance_weights import unweighable
from ..pieces.objective import integrand
from ..posteriors.distributions import cut
from ..posteriors.noise import log_prob, rsample
from .sticking_the_landing import StickingTheLanding


class DReG(StickingTheLanding):
    r"""Reparameterize a second time: ĝ = Σ_k ŵ_k² J_kᵀ ∇_z log w_k, K = S.

    w_k = p(x, z_k) / q(z_k), ŵ_k = w_k / Σ_l w_l, J = ∂g/∂η, φ cut out of the parameters of log q. The score
    term of the gradient of L_K = E log (1/K) Σ w_k is reparameterized in its turn, which turns ŵ_k into ŵ_k².
    Unbiased for L_K (objective "iwae") when log p is differentiable in z; K evaluations of log p(x|z), a
    backward pass through them for φ, another for θ.

    Its signal-to-noise ratio in φ does not fall with K as that of ``iwae`` does: the choice for
    training with K large. At K = 1 it is ``sticking-the-landing``, and where q is far from the posterior it
    can be noisier than ``iwae``, for the same reason as that.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1), prior=normal)
        >>> create("dreg")(normal, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Tucker, Lawson, Gu & Maddison, Doubly Reparameterized Gradient Estimators for Monte Carlo
        Objectives, 2019, eq. 8.
    """

    objective = "iwae"
    requires_iid_draws = True
    label = "dreg"

    def __init__(self) -> None:
        super().__init__()

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return unweighable(target) or super().supports(q, target, num_samples)

    def weigh(self, normalized: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
        """What multiplies the path derivative of each log w, from ŵ (S, *batch)."""
        return normalized.square()

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = rsample(q, num_samples)
        leaf = z.detach().requires_grad_()
        with torch.enable_grad():
            log_w = integrand(q, target, leaf, "sampled", log_prob(cut(q), leaf, noise))
            weighted = (self.weigh(log_w.detach().softmax(0)) * log_w).sum()
        (slope,) = torch.autograd.grad(weighted, leaf, retain_graph=True)
        event = tuple(range(-len(q.event_shape), 0))
        surrogate = (z * slope).sum((0, *event))
        return Estimate(surrogate, log_w.logsumexp(0) - math.log(num_samples))
