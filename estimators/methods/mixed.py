"""The mixture of the pathwise and the score-function gradient that has the least variance."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import integer_from, one_of
from ..pieces.objective import KL_CHOICES, analytic_kl, integrand
from ..pieces.scores import align, inner, per_sample, scores, shared_parameters
from ..posteriors.distributions import parameters_of, with_parameters
from ..posteriors.layered import not_one_latent
from ..posteriors.noise import GaussianNoise, rsample
from .reparameterization import Reparameterization

_TINY_PILOT = 4  # with fewer, the variance that an estimated weight adds need not be finite


class Mixed(Estimator):
    r"""Mix the pathwise and the score-function gradient for the least variance of each coordinate.

    For coordinate k of η, on the same samples,

        ĝ_k = w_k r_k + (1 − w_k) s_k − ∂_k KL,   w_k = (V_s − C) / (V_s + V_r − 2C),

    r the mean of ∇_η f(g(ε; η)), as in ``reparameterization``, s that of (f(z) − b) ∇_η log q(z), b = E f, V
    and C their variances and covariance. No other mixture has less than its variance,
    (V_s V_r − C²) / (V_s + V_r − 2C). w_k leaves (0, 1) where the noisier one is a good control variate of
    the other, and is the inverse-variance weight at C = 0. Weights and b are estimated in each call from
    ``pilot`` samples of their own, independent of the S that are averaged: unbiased for the ELBO at any S
    when f is differentiable in z, and the variance exceeds the least by O(1/pilot).

    S + pilot evaluations of log p(x|z), a backward pass through all of them. Where f is rough on the scale
    of q the score function carries the estimate, where it is smooth the path, and coordinates may differ; for
    a smooth f with large S or D plain ``reparameterization`` is as good for a fraction of the cost.

    With ``kl="sampled"`` f gains log p(z) − log q(z), in r with its total derivative.

    Args:
        pilot: samples that estimate the weights and b, at least 4.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Gamma(torch.ones(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: torch.cos(9 * z).sum(-1))
        >>> create("mixed[pilot=20]")(q, target, num_samples=1).surrogate.shape
        torch.Size([4])

    References:
        Parmas, Rasmussen, Peters & Doya, PIPPS: Flexible Model-Based Policy Search Robust to the Curse of
        Chaos, 2018 (the total propagation algorithm: inverse-variance weights, C taken to be 0).
    """

    derivatives = 1
    weighs_kl = True

    def __init__(self, pilot: int = 64, kl: str = "analytic") -> None:
        super().__init__()
        self.pilot = integer_from(_TINY_PILOT, "pilot", pilot)
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        one = not_one_latent(q, "reparameterization")
        return one or shared_parameters(q) or Reparameterization(self.kl).supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        f_pilot, *pilot = _both(q, target, self.pilot, self.kl)
        f, path, score = _both(q, target, num_samples, self.kl)
        baseline = f_pilot.detach().mean(0)
        term = torch.zeros_like(baseline)
        for name, parameter in parameters_of(q).items():
            weight = self.weigh(pilot[0][name], _weighted(f_pilot, baseline, pilot[1][name]))
            by_score = _weighted(f, baseline, score[name])
            gradient = torch.lerp(by_score, path[name], weight.expand_as(by_score)).mean(0)
            term = term + inner(parameter, gradient, q.batch_shape)
        elbo = term - term.detach() + f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(elbo, elbo, info={"f": f.detach()})

    def weigh(
        self, path: Float[Tensor, "pilot *parameter"], score: Float[Tensor, "pilot *parameter"]
    ) -> Float[Tensor, "*parameter"]:
        """w, the pathwise part, from the pilot's gradients, each (pilot, *parameter shape).

        V_s − C = Cov(s, s − r) and V_s + V_r − 2C = Var(s − r): the regression of s on s − r.
        """
        difference = score - path
        difference = difference - difference.mean(0)
        # Where the two do not differ any weight does: 0/0 becomes 0.
        spread = difference.square().sum(0).clamp_min(torch.finfo(score.dtype).tiny)
        return (score * difference).sum(0) / spread


def _both(
    q: Distribution, target: Target, num_samples: int, kl: str
) -> tuple[Float[Tensor, "S *batch"], dict[str, Tensor], dict[str, Tensor]]:
    """f (S, *batch), attached to θ, and the pathwise gradient and score of every sample."""
    parameters = parameters_of(q)
    leaves = per_sample(parameters, num_samples)
    with torch.enable_grad():
        own = with_parameters(q, leaves)
        z, noise = rsample(own, 1)
        z = z.squeeze(0)
        if isinstance(noise, GaussianNoise):
            noise = noise._replace(epsilon=noise.epsilon.squeeze(0))
        f = integrand(own, target, z, kl, noise=noise)
        total = f.sum() + 0.0 * z.sum()  # keeps what is constant in z differentiable in it
        path = torch.autograd.grad(total, tuple(leaves.values()), retain_graph=True, materialize_grads=True)
    return f, dict(zip(leaves, path, strict=True)), scores(q, parameters, z.detach(), noise)


def _weighted(
    f: Float[Tensor, "S *batch"], baseline: Float[Tensor, "*batch"], score: Float[Tensor, "S *parameter"]
) -> Float[Tensor, "S *parameter"]:
    """(f − b) ∇ log q, (S, *parameter shape)."""
    return align(f.detach() - baseline, score) * score
