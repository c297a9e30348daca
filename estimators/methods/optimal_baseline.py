"""REINFORCE with the variance-minimizing baseline of each coordinate."""

from __future__ import annotations

import torch
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.arguments import positive_integer
from ..pieces.objective import analytic_kl, integrand
from ..pieces.scores import align, inner, scores, shared_parameters
from ..posteriors.distributions import cut, parameters_of
from ..posteriors.noise import draw
from .score_function import ScoreFunction


class OptimalBaseline(ScoreFunction):
    r"""Score function with b*_k = E[f s_k²] / E[s_k²] for each coordinate k of η.

    s = ∇ log q(z) with respect to the parameters q is built from (loc and scale of a Gaussian, logits
    of a Bernoulli), one value a datum and coordinate; rescaling a coordinate leaves b*_k unchanged.
    b* is estimated in each call from ``pilot`` samples of their own, independent of the S that are
    averaged, so the estimate is unbiased at any S. Its variance exceeds that of the true b* by
    O(1/pilot). S + pilot evaluations of log p(x|z), no backward pass through it: a lower bound to
    hold other baselines against rather than a bargain.

    Args:
        pilot: samples that estimate b*.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("optimal-baseline[pilot=20]")(q, target, num_samples=1).surrogate.shape
        torch.Size([4])

    References:
        Greensmith, Bartlett & Baxter, Variance Reduction Techniques for Gradient Estimates, 2004, section 4.
        Ranganath, Gerrish & Blei, Black Box Variational Inference, 2014, section 3.2.
    """

    def __init__(self, pilot: int = 64, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.pilot = positive_integer("pilot", pilot)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return shared_parameters(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        parameters = parameters_of(q)
        with torch.no_grad():
            z_pilot, pilot_noise = draw(q, self.pilot)
            f_pilot = integrand(q, target, z_pilot, self.kl, noise=pilot_noise)
        pilot_scores = scores(q, parameters, z_pilot, pilot_noise)
        z, noise = draw(q, num_samples)
        f = integrand(cut(q), target, z, self.kl, noise=noise)
        cost, sample_scores = f.detach(), scores(q, parameters, z, noise)

        score_term = torch.zeros_like(cost[0])
        for name, parameter in parameters.items():
            square = pilot_scores[name].square()
            # Where every pilot score is 0 (a saturated Bernoulli), any baseline does: 0/0 becomes 0.
            weight = square.sum(0).clamp_min(torch.finfo(square.dtype).tiny)
            baseline = (align(f_pilot, square) * square).sum(0) / weight
            gradient = ((align(cost, square) - baseline) * sample_scores[name]).mean(0)
            score_term = score_term + inner(parameter, gradient, q.batch_shape)
        elbo = score_term - score_term.detach() + f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(elbo, elbo, info={"f": cost})
