"""The reparameterization (pathwise) gradient."""

from __future__ import annotations

from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.objective import KL_CHOICES, analytic_kl, integrand, unsupported_kl
from ..posteriors.distributions import describe, reparameterizable
from ..posteriors.draws import DRAWS, smallest_number, unsupported_draws
from ..posteriors.layered import Layered
from ..posteriors.noise import rsample


class Reparameterization(Estimator):
    r"""Differentiate through the sample: z = g(ε; η), ε free of φ.

    ĝ = (1/S) Σ_s ∇_η f(g(ε_s; η)) − ∇_η KL, with z = μ + σ ⊙ ε for a Gaussian. Unbiased for the ELBO
    when f is differentiable in z; S evaluations of log p(x|z), one backward pass through it.

    With ``kl="sampled"`` the KL is integrated by the same samples: f gains log p(z) − log q(z), and
    the total derivative of log q is kept (the score term that sticking-the-landing drops).

    ``draws="antithetic"`` mirrors half of the noise, ε and −ε: what is odd in ε cancels (the variance in μ of
    a quadratic f), what is even doubles. ``draws="sobol"`` takes ε from scrambled Sobol' points, randomized
    anew for each datum and estimate: for smooth f in few dimensions the variance falls almost like S⁻³. Each
    sample has the distribution of an independent one, so neither moves the mean.

    Args:
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("reparameterization")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Kingma & Welling, Auto-Encoding Variational Bayes, 2014, eq. 7 (kl analytic), eq. 6 (sampled).
        Rezende, Mohamed & Wierstra, Stochastic Backpropagation, 2014, section 3.
        Buchholz, Wenzel & Mandt, Quasi-Monte Carlo Variational Inference, 2018, section 3 (sobol).
    """

    derivatives = 1
    weighs_kl = True

    def __init__(self, kl: str = "analytic", draws: str = "iid") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)
        self.draws = one_of("draws", draws, DRAWS)
        self.min_samples = max(self.min_samples, smallest_number(draws))

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if not reparameterizable(q):
            why = "its rsample is biased" if q.has_rsample else "torch has no rsample for it"
            remedy = ": use leave-one-out" if isinstance(q, Layered) else ""
            return f"needs a reparameterizable posterior; {describe(q)} is not ({why}){remedy}"
        refused = super().supports(q, target, num_samples) or unsupported_kl(q, target, self.kl)
        return refused or unsupported_draws(q, self.draws)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, noise = rsample(q, num_samples, self.draws)
        elbo = integrand(q, target, z, self.kl, noise=noise).mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(surrogate=elbo, value=elbo)
