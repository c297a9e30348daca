"""REINFORCE with f at relaxed samples as its control variate."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import number, one_of, positive_number
from ..pieces.objective import KL_CHOICES, unsupported_kl
from ..pieces.relaxed_controls import relaxed
from ..pieces.slopes import relaxed_integrand, with_slope
from ..pieces.tuning import carried, copies, squared_norm
from ..pieces.variables import not_relaxable, tied, variables_of


class REBAR(Estimator):
    r"""Subtract η f at a relaxation of the sample, whose gradient is had by reparameterization.

    Given logits φ and Gumbel noise G let ζ = φ + G, b = argmax ζ, σ_τ(ζ) = softmax(ζ/τ) of each variable,
    and ζ̃ drawn anew from the distribution of ζ given b; c(ζ) = f(σ_τ(ζ)). Then

        ĝ = (1/S) Σ_s [(f(b_s) − η c(ζ̃_s)) ∇_φ log q(b_s) + η ∂_φ c(ζ_s) − η ∂_φ c(ζ̃_s)] − ∇_φ KL

    in which ∂_φ c(ζ̃) is taken at fixed b: the noise of ζ̃ given b, cut off where b is no longer the argmax,
    moves with φ, and without that the estimate is biased. Unbiased for the ELBO of Bernoulli and one-hot
    categorical variables whatever τ and η are and however f is extended off the support. 3 S evaluations of
    log p(x|z), 2 S of them relaxed and with a backward pass.

    η and τ are learned: `aux_loss` is ‖ĝ‖² without the KL, which takes second derivatives of f. η = 0 is
    ``score-function``, and at a high temperature that with η f(½) as its baseline. Use it where S has to be
    1; of two samples and more ``leave-one-out`` costs a third, and may have less variance.

    With ``kl="sampled"`` f gains log p(z) − log q(z), linear between the states.

    Args:
        temperature: initial τ.
        eta: initial η.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("rebar[temperature=0.5]")(q, target, num_samples=1).surrogate.shape
        torch.Size([4])

    References:
        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, REBAR: Low-variance, Unbiased Gradient Estimates for
        Discrete Latent Variable Models, 2017, section 3.
    """

    derivatives = 1
    relaxes_target = True
    weighs_kl = True

    def __init__(self, temperature: float = 0.5, eta: float = 1.0, kl: str = "analytic") -> None:
        super().__init__()
        start = math.log(positive_number("temperature", temperature))
        self.log_temperature = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.eta = nn.Parameter(torch.tensor(number("eta", eta), dtype=torch.float64))
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or not_relaxable(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables = variables_of(q)
        own = (self.log_temperature, self.eta)
        log_temperature, eta = leaves = copies(own, variables.logits, q.batch_shape)
        with torch.enable_grad():
            draws = relaxed(q, variables, num_samples, log_temperature.exp())
            f = relaxed_integrand(q, target, self.kl, variables, draws.codes)
            plain = (f.detach()[..., None, None] * draws.centred).mean(0)
            c, slope = with_slope(q, target, self.kl, variables, draws.both, attached=self.training)
            control = draws.control(c, slope, attached=self.training)
            gradient = plain + eta[..., None, None] * control
        estimate = tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
        if not self.training:
            return estimate
        return estimate._replace(aux_loss=carried(squared_norm(variables, gradient), leaves, own))
