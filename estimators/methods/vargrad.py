"""The gradient of the log-variance loss."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.objective import integrand, unsupported_kl
from ..posteriors.distributions import no_score
from ..posteriors.noise import draw, log_prob


class VarGrad(Estimator):
    r"""Differentiate a variance: −∇_η ½ Var_r(log q(z) − log p(x, z)) at r = q.

    ĝ = −∇_η ½ (1/(S−1)) Σ_s (ℓ_s − ℓ̄)², ℓ_s = log q(z_s) − log p(x, z_s), the samples z_s ~ q held fixed.
    Minus the loss, because the ELBO is maximized. Unbiased for the ELBO, for any posterior and any f,
    discrete latents included, because at r = q the loss has the gradient of KL(q(z) ‖ p(z|x)); this takes
    the S − 1 and iid draws. S evaluations of log p(x|z), no backward pass through it.

    The same estimate as ``leave-one-out[kl=sampled]``, sample by sample: of the two, take either, and the
    one with the analytic KL where there is one. Without a prior ℓ = −log p(x|z), and log q enters by its
    derivative alone.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("vargrad")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Richter, Boustati, Nüsken, Ruiz & Akyildiz, VarGrad: A Low-Variance Gradient Estimator for
        Variational Inference, 2020, eq. 8 and proposition 1.
    """

    min_samples = 2
    requires_iid_draws = True
    label = "vargrad"
    weighs_kl = True

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return super().supports(q, target, num_samples) or no_score(q) or unsupported_kl(q, target, "sampled")

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = draw(q, num_samples)
        log_q = log_prob(q, z, noise)
        f = integrand(q, target, z, "sampled", log_q.detach())
        # The value is log q(z) − log p(x, z), the gradient in φ that of log q(z).
        log_ratio = log_q - log_q.detach() - f.detach()
        loss = 0.5 * log_ratio.var(0)
        elbo = f.mean(0) - (loss - loss.detach())
        return Estimate(surrogate=elbo, value=elbo)
