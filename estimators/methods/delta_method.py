"""The delta-method control variate of the score-function gradient, for Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.arguments import integer_from
from ..pieces.objective import analytic_kl, integrand
from ..pieces.scores import align, inner, scores
from ..posteriors.distributions import cut, describe, parameters_of, with_parameters
from ..posteriors.families import family_of
from ..posteriors.gaussians import is_diagonal_gaussian
from ..posteriors.layered import not_one_latent
from ..posteriors.noise import Noise, draw, log_prob
from .score_function import ScoreFunction

_TINY_PILOT = 4  # with fewer, the variance that an estimated coefficient adds need not be finite


class DeltaMethod(ScoreFunction):
    r"""Score function of f − h, h the second-order Taylor polynomial of f at the mean of q.

    With m = E z and H the Hessian of f, h(z) = f(m) + (z − m)ᵀ ∇f(m) + ½ (z − m)ᵀ H(m) (z − m), whose
    expectation under a Gaussian is known and added back:

        ĝ = (1/S) Σ_s (f(z_s) − h(z_s)) ∇_η log q(z_s) + ∇_η E_q[h(z)] − ∇_η KL,
        ∇_μ E_q[h] = ∇f(m),   ∇_σ_j E_q[h] = σ_j H_jj,   for Σ = L Lᵀ: ∇_L E_q[h] = tril(H L)

    with the coefficients of h held fixed. Unbiased for the ELBO of a diagonal or full-covariance Gaussian
    whatever they are, hence also where f has kinks. Where f is quadratic the variance is zero; where f bends
    within a few σ of m, as cos(k z) with kσ above 1, h grows away from f and adds noise.

    ``pilot`` samples of their own, independent of the S that are averaged, estimate the coefficient of least
    variance of each coordinate k of η, in place of 1: β_k = Cov(a_k, b_k) / Var(b_k) with
    a_k = (f − f(m)) ∂_k log q and b_k = (h − f(m)) ∂_k log q; f(m) stays a baseline whatever β_k is.

    H takes D Hessian-vector products, at D copies of m and whatever S is; with it (z − m)ᵀ H (z − m) costs
    no more products. In all D + S (+ pilot) evaluations of log p(x|z), the D ones with a backward and a
    double-backward pass. For f smooth on the scale of q and D small; the reparameterization gradient needs
    one backward pass and no more than ∇f.

    With ``kl="sampled"`` f gains log p(z) − log q(z), expanded too; the direct derivative of −log q has mean
    zero and is left out.

    Args:
        pilot: samples that estimate the coefficients; None to leave them at 1.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> loc = torch.zeros(3, 2, requires_grad=True)
        >>> q = torch.distributions.Independent(torch.distributions.Normal(loc, 0.5), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> estimate = create("delta-method")(q, target, num_samples=1)
        >>> torch.autograd.grad(estimate.surrogate.sum(), loc)[0][0]
        tensor([2., 2.])

    References:
        Paisley, Blei & Jordan, Variational Bayesian Inference with Stochastic Search, 2012.
        Mohamed, Rosca, Figurnov & Mnih, Monte Carlo Gradient Estimation in Machine Learning, 2020,
        section 7.4.
    """

    derivatives = 2

    def __init__(self, pilot: int | None = None, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.pilot = None if pilot is None else integer_from(_TINY_PILOT, "pilot", pilot)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if layers := not_one_latent(q, "leave-one-out"):
            return layers
        if not is_diagonal_gaussian(q) and family_of(q) is not td.MultivariateNormal:
            given = f"{describe(q)} with event shape {tuple(q.event_shape)}"
            return f"needs a Gaussian posterior, Independent(Normal, 1) or MultivariateNormal, not a {given}"
        return super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        fixed = cut(q)
        taylor = _expand(fixed, target, self.kl)
        coefficients = self._coefficients(fixed, target, taylor)
        z, noise = draw(q, num_samples)
        f = integrand(fixed, target, z, self.kl, noise=noise)
        centred = f.detach() - taylor.value
        polynomial = taylor(z)
        if coefficients is None:
            term = ((centred - polynomial) * log_prob(q, z, noise)).mean(0) + taylor.expectation(q)
        else:
            term = (centred * log_prob(q, z, noise)).mean(0)
            zero_mean = _control_variate(fixed, taylor, polynomial, z, noise)
            for name, parameter in parameters_of(q).items():
                term = term - inner(parameter, coefficients[name] * zero_mean[name], q.batch_shape)
        elbo = term - term.detach() + f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(elbo, elbo, info={"f": f.detach()})

    def _coefficients(self, q: Distribution, target: Target, taylor: _Taylor) -> dict[str, Tensor] | None:
        """β of each coordinate, in the shapes of q's parameters; None for 1."""
        if self.pilot is None:
            return None
        with torch.no_grad():
            z, noise = draw(q, self.pilot)
            centred = integrand(q, target, z, self.kl, noise=noise) - taylor.value
        polynomial = taylor(z)
        found = {}
        for name, score in scores(q, parameters_of(q), z, noise).items():
            a, b = align(centred, score) * score, align(polynomial, score) * score
            b = b - b.mean(0)
            # Where b vanishes (f flat at m) any coefficient does: 0/0 becomes 0.
            found[name] = (a * b).sum(0) / b.square().sum(0).clamp_min(torch.finfo(b.dtype).tiny)
        return found


class _Taylor(NamedTuple):
    """A second-order expansion about q's mean m, detached.

    Attributes:
        mean: m, (*batch, D).
        value: f(m), (*batch).
        slope: ∇f(m), (*batch, D).
        hessian: (*batch, D, D).
    """

    mean: Float[Tensor, "*batch D"]
    value: Float[Tensor, "*batch"]
    slope: Float[Tensor, "*batch D"]
    hessian: Float[Tensor, "*batch D D"]

    def __call__(self, z: Float[Tensor, "S *batch_event"]) -> Float[Tensor, "S *batch"]:
        """h(z) − f(m), (S, *batch), for z (S, *batch, *event)."""
        away = z.reshape(len(z), *self.mean.shape) - self.mean
        bent = torch.einsum("...jk,s...k->s...j", self.hessian, away)
        return (away * (self.slope + 0.5 * bent)).sum(-1)

    def expectation(self, q: Distribution) -> Float[Tensor, "*batch"]:
        """Of gradient ∇_η E_q[h] where q has the mean m, (*batch), the coefficients held fixed."""
        if isinstance(q, td.MultivariateNormal):
            factor = q.scale_tril.tril()
            spread = (factor * (self.hessian @ factor)).sum((-2, -1))
            return (self.slope * q.loc).sum(-1) + 0.5 * spread
        loc, scale = (value.reshape(self.mean.shape) for value in parameters_of(q).values())
        curvature = self.hessian.diagonal(dim1=-2, dim2=-1)
        return (self.slope * loc + 0.5 * curvature * scale.square()).sum(-1)


def _expand(q: Distribution, target: Target, kl: str) -> _Taylor:
    """Expand the integrand about the mean of q, which has no path to φ: row j of H at the j-th copy of m."""
    mean = q.mean.reshape(*q.batch_shape, -1)
    copies = mean.expand(mean.shape[-1], *mean.shape).clone().requires_grad_()
    with torch.enable_grad():
        f = integrand(q, target, copies.reshape(len(copies), *q.batch_shape, *q.event_shape), kl)
        slope = _derivative(f, copies, create_graph=True)
        rows = _derivative(slope.diagonal(dim1=0, dim2=-1), copies, create_graph=False)
    return _Taylor(mean, f[0].detach(), slope[0].detach(), rows.detach().movedim(0, -2))


def _derivative(
    output: Tensor, point: Float[Tensor, "C *batch D"], create_graph: bool
) -> Float[Tensor, "C *batch D"]:
    """∇ of output's sum, zeros where output does not depend on the point (the slope of a linear f)."""
    if not output.requires_grad:
        return torch.zeros_like(point)
    (found,) = torch.autograd.grad(
        output.sum(), point, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return found


def _control_variate(
    q: Distribution,
    taylor: _Taylor,
    polynomial: Float[Tensor, "S *batch"],
    z: Float[Tensor, "S *batch_event"],
    noise: Noise | None,
) -> dict[str, Tensor]:
    """(1/S) Σ_s (h(z_s) − f(m)) ∂_k log q(z_s) − ∂_k E_q[h] in the shapes of q's parameters: of mean zero."""
    leaves = {name: value.detach().requires_grad_() for name, value in parameters_of(q).items()}
    with torch.enable_grad():
        own = with_parameters(q, leaves)
        difference = (polynomial * log_prob(own, z, noise)).mean(0) - taylor.expectation(own)
        found = torch.autograd.grad(difference.sum(), tuple(leaves.values()))
    return dict(zip(leaves, found, strict=True))
