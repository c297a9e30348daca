"""The reparameterization gradient with its linearization at the mean as control variate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.arguments import one_of
from ..pieces.objective import analytic_kl, integrand
from ..pieces.quadratic import Quadratic, flat, unknown_covariance, unknown_mean
from ..posteriors.distributions import rsample
from ..posteriors.layered import not_one_latent
from .reparameterization import Reparameterization

HESSIAN_CHOICES = ("hvp", "full")


class LinearizedHessian(Reparameterization):
    r"""Subtract the gradient's own linearization at the mean: ∇f(z) − H (z − m), H = ∇²f(m), m = E_q z.

    For z = μ + σ ⊙ ε the linearized gradient g̃(z) = ∇f(μ) + H σε stands for ∇f(z), and its known expectation
    is added back:

        ĝ_μ = (1/S) Σ_s [∇f(z_s) − g̃(z_s)] + ∇f(μ)
        ĝ_σ = (1/S) Σ_s [∇f(z_s) − g̃(z_s)] ⊙ ε_s + diag(H) ⊙ σ

    less ∇_η KL. Unbiased for the ELBO at any S when f is differentiable, and twice so at μ. One product
    with H does not give diag(H), so there are two variants:

    - ``hessian="hvp"``, the paper's HVP+Local. Its leave-one-out mean of ε ⊙ H σε over the other samples, in
      place of diag(H) ⊙ σ, cancels in the mean over the S samples against what it stands for: what remains in
      ĝ_σ is g̃ = ∇f(μ), which needs no diagonal and serves S = 1. ĝ_μ needs H along the mean of the samples,
      one product. S + 1 evaluations of log p(x|z), a backward pass through all of them and a second one
      through the last.
    - ``hessian="full"``, the formulas above, H from D products with the unit vectors: S + D evaluations, D of
      them differentiated twice. Worth it where D is small. (The paper's diagonal variant needs the same D
      products and removes less.)

    For quadratic f the variance in μ is zero, and with "full" all of it. For f = (z − k)², d = μ − k, one
    sample: hvp Var ∂σ = 8 σ² (reparameterization: 4 d² + 8 σ²), full 0. Where f is rough at the scale of
    σ, as is exp(−k z²) with k σ² large, the linearization misleads and adds variance, "full" the more.

    q may be any reparameterizable posterior of known mean ("full": and covariance), not a diagonal Gaussian
    alone: what is subtracted is the pathwise gradient of the Taylor polynomial of f at m, for "full" of the
    second order, less that of its expectation. With ``kl="sampled"`` f gains log p(z), which is linearized
    too, and − log q(z), which is not: for a Gaussian its total derivative has no noise.

    Args:
        hessian: "hvp" or "full".
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> loc, scale = torch.zeros(4, 2, requires_grad=True), torch.ones(4, 2)
        >>> q = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> estimate = create("linearized-hessian")(q, target, num_samples=1)
        >>> torch.autograd.grad(estimate.surrogate[0], loc)[0][0].round(decimals=3)
        tensor([2., 2.])

    References:
        Miller, Foti, D'Amour & Adams, Reducing Reparameterization Gradient Variance, 2017, section 3.
        Geffner & Domke, Approximation Based Variance Reduction for Reparameterization Gradients, 2020,
        section 4 (that in the scale the variant with products comes to a constant g̃).
    """

    derivatives = 2

    def __init__(self, hessian: str = "hvp", kl: str = "analytic") -> None:
        super().__init__(kl)
        self.hessian = one_of("hessian", hessian, HESSIAN_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if layers := not_one_latent(q, "reparameterization"):
            return layers
        unknown = unknown_covariance if self.hessian == "full" else unknown_mean
        return super().supports(q, target, num_samples) or unknown(q)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = rsample(q, num_samples)
        f = integrand(q, target, z, self.kl).mean(0)
        control = self._with_columns if self.hessian == "full" else self._with_product
        elbo = f - control(q, target, z) - analytic_kl(q, target, self.kl)
        return Estimate(surrogate=elbo, value=elbo)

    def _with_product(
        self, q: Distribution, target: Target, z: Float[Tensor, "S *batch_event"]
    ) -> Float[Tensor, "*batch"]:
        """∇f(m) in all parameters, H (z − m) in the mean; expectation zero, (*batch)."""
        mean = q.mean
        distance = z.mean(0) - mean
        slope, product = self._derivatives(q, target, mean[None], distance.detach()[None])
        return flat(q, distance * slope[0] + (mean - mean.detach()) * product[0]).sum(-1)

    def _with_columns(
        self, q: Distribution, target: Target, z: Float[Tensor, "S *batch_event"]
    ) -> Float[Tensor, "*batch"]:
        """∇f(m) + H (z − m) in all parameters, less the expectation, (*batch)."""
        mean = q.mean
        size = q.event_shape.numel()
        units = torch.eye(size, dtype=z.dtype, device=z.device)
        units = units.reshape(size, *(1 for _ in q.batch_shape), *q.event_shape).expand(size, *mean.shape)
        slope, columns = self._derivatives(q, target, mean.expand_as(units), units)
        taylor = Quadratic(flat(q, slope[0]), flat(q, columns).movedim(0, -1))
        return taylor.average(q, z) - taylor.expectation(q)

    def _derivatives(
        self,
        q: Distribution,
        target: Target,
        at: Float[Tensor, "C *batch_event"],
        along: Float[Tensor, "C *batch_event"],
    ) -> tuple[Float[Tensor, "C *batch_event"], Float[Tensor, "C *batch_event"]]:
        """∇f and ∇²f · along at points (C, *batch, *event), without log q, detached.

        Backward over backward: on a small decoder forward-mode products take several times as long.
        """
        leaf = at.detach().clone().requires_grad_()
        with torch.enable_grad():
            f = integrand(q, target, leaf, self.kl, leaf.new_zeros(()))
            nothing = 0.0 * leaf.sum()  # keeps what is constant or linear in z differentiable in it
            (slope,) = torch.autograd.grad(f.sum() + nothing, leaf, create_graph=True)
            (product,) = torch.autograd.grad((slope * along).sum() + nothing, leaf)
        return slope.detach(), product
