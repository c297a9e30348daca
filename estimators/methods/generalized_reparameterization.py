"""The generalized reparameterization gradient: Gamma and Beta posteriors, standardized."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import softplus

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.objective import KL_CHOICES, analytic_kl, integrand, unsupported_kl
from ..posteriors.distributions import describe, draw, parameters_of
from ..posteriors.families import family_of, innermost
from ..posteriors.layered import not_one_latent


class _Standardized(NamedTuple):
    """z as a function of ε and η, elementwise, at the ε that z came from.

    Attributes:
        z: attached to η through T(ε; η).
        log_density: log q_ε(ε; η), up to a constant.
    """

    z: Tensor
    log_density: Tensor


class GeneralizedReparameterization(Estimator):
    r"""Differentiate through a sample standardized by φ, and weigh the score of what φ is left in it.

    z = T(ε; η), where T only standardizes: ε has mean 0 and variance 1, and a density q_ε(ε; η) that still
    depends on η, if weakly. Both dependences are differentiated:

        ĝ = (1/S) Σ_s [∇_η f(T(ε_s; η)) + f(z_s) ∇_η log q_ε(ε_s; η)] − ∇_η KL

        Gamma(α, β):   log z = ψ(α) − log β + ε √ψ′(α)
        Beta(α, β):    logit z = ψ(α) − ψ(β) + ε √(ψ′(α) + ψ′(β))
        N(μ, σ²):      z = μ + σ ε, which leaves nothing over: this is ``reparameterization``

    with ψ, ψ′ the digamma and trigamma functions. Unbiased for the ELBO when f is differentiable in z; S
    evaluations of log p(x|z), one backward pass. The correction, the second term, is a score-function
    gradient and noisy with the constant part of f; it vanishes for the rate of a Gamma, and shrinks as α
    grows. The implicit ``reparameterization`` that torch has for these posteriors is free of it.

    With ``kl="sampled"`` f gains log p(z) − log q(z), with its total derivative.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Gamma(torch.ones(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("generalized-reparameterization")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Ruiz, Titsias & Blei, The Generalized Reparameterization Gradient, 2016, section 3.
    """

    derivatives = 1
    weighs_kl = True

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if layers := not_one_latent(q, "reparameterization or leave-one-out"):
            return layers
        if family_of(innermost(q)) not in _STANDARDIZATIONS:
            known = ", ".join(family.__name__ for family in _STANDARDIZATIONS)
            return f"knows how to standardize {known}; the posterior is a {describe(q)}"
        return super().supports(q, target, num_samples) or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z, log_density = self.standardize(q, draw(q, num_samples))
        f = integrand(q, target, z, self.kl)
        rest = log_density.reshape(*f.shape, -1).sum(-1)
        # log q_ε − its own value adds nothing to the ELBO's value and the correction to its gradient.
        weighted = torch.addcmul(f, f.detach(), rest - rest.detach())
        elbo = weighted.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(surrogate=elbo, value=elbo)

    def standardize(self, q: Distribution, z: Float[Tensor, "S *batch_event"]) -> _Standardized:
        """The standardization of q's family at samples z (S, *batch, *event)."""
        return _STANDARDIZATIONS[family_of(innermost(q))](z, **parameters_of(q))


def _normal(z: Tensor, loc: Tensor, scale: Tensor) -> _Standardized:
    moved = _move(loc, scale, z)
    return _Standardized(_attach(z, moved, torch.ones_like(z)), torch.zeros_like(z))


def _gamma(z: Tensor, concentration: Tensor, rate: Tensor) -> _Standardized:
    y = z.log() + rate.detach().log()  # of Gamma(α, 1), so that β drops out of the density
    scale = torch.polygamma(1, concentration).sqrt()
    y = _move(concentration.digamma(), scale, y)
    log_density = concentration * y - y.exp() - concentration.lgamma() + scale.log()
    return _Standardized(_attach(z, y - rate.log(), z), log_density)


def _beta(z: Tensor, concentration1: Tensor, concentration0: Tensor) -> _Standardized:
    scale = (torch.polygamma(1, concentration1) + torch.polygamma(1, concentration0)).sqrt()
    kind = torch.finfo(z.dtype)
    logit = z.clamp_min(kind.tiny).log() - (-z.clamp_max(1 - kind.eps)).log1p()
    y = _move(concentration1.digamma() - concentration0.digamma(), scale, logit)
    total = (concentration1 + concentration0).lgamma() - concentration1.lgamma() - concentration0.lgamma()
    log_density = total - concentration1 * softplus(-y) - concentration0 * softplus(y) + scale.log()
    return _Standardized(_attach(z, y, z * (1 - z)), log_density)


def _move(
    loc: Float[Tensor, "*#parameter"], scale: Float[Tensor, "*#parameter"], y: Float[Tensor, "*sample"]
) -> Float[Tensor, "*sample"]:
    """loc + scale ε, attached, at the ε of y, which is held fixed."""
    return loc + scale * ((y - loc) / scale).detach()


def _attach(
    z: Float[Tensor, "*sample"], y: Float[Tensor, "*sample"], slope: Float[Tensor, "*sample"]
) -> Float[Tensor, "*sample"]:
    """z itself with the derivative of z(y), slope being dz/dy."""
    return torch.addcmul(z, slope, y - y.detach())


_STANDARDIZATIONS: dict[type[Distribution], Callable[..., _Standardized]] = {
    td.Normal: _normal,
    td.Gamma: _gamma,
    td.Beta: _beta,
}
