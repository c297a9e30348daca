"""The measure-valued gradient of a diagonal Gaussian."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..pieces.arguments import one_of
from ..pieces.objective import KL_CHOICES, analytic_kl, integrand, unsupported_kl
from ..posteriors.distributions import cut, describe, parameters_of
from ..posteriors.gaussians import is_diagonal_gaussian
from ..posteriors.layered import not_one_latent
from ..posteriors.noise import GaussianNoise, log_prob

_ROOT_TWO_PI = math.sqrt(2 * math.pi)


class MeasureValued(Estimator):
    r"""Write ∂_η q as c (q⁺ − q⁻), a difference of two densities, and average f under both.

    For coordinate j of a diagonal Gaussian, f at z with z_j replaced, the others as drawn from q:

        ∂/∂μ_j:  E[f(μ_j + σ_j W) − f(μ_j − σ_j W)] / (σ_j √(2π)),  W Rayleigh(1): Weibull, scale √2, shape 2
        ∂/∂σ_j:  E[f(μ_j + σ_j M) − f(μ_j + σ_j N)] / σ_j,          M double-sided Maxwell, N normal

    less ∇_η KL, averaged over S samples. Unbiased for the ELBO for any f, differentiable or not. N is the
    noise of the sample itself, so that f(z) serves all D scales: S (3 D + 1) evaluations of log p(x|z), no
    backward pass through it. Low variance where f is rough or discontinuous and D small; the cost rules
    it out at large D, and where f is smooth the reparameterization gradient is as good for less.

    ``coupled`` draws both parts from common noise: the same W, and N = M U with U uniform on (0, 1). In μ
    it removes the noise of the part of f that is even about μ, and doubles the variance of the odd part.
    For f = (z − k)², d = μ − k, one sample:

        coupled:    Var ∂μ = (16/π − 4) d²,           Var ∂σ = 4 d² + 4 σ²
        uncoupled:  Var ∂μ = (8/π − 2) d² + 4 σ²/π,   Var ∂σ = 16 d² + 8 σ²

    With ``kl="sampled"`` f gains log p(z) − log q(z); the direct derivative of −log q has mean zero and is
    left out.

    Args:
        coupled: whether positive and negative part share their noise.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z > 1).double().sum(-1))
        >>> create("measure-valued")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Mohamed, Rosca, Figurnov & Mnih, Monte Carlo Gradient Estimation in Machine Learning, 2020,
        section 6 (table 1: the decompositions; 6.2: several dimensions; 7.2: coupling).
        Rosca, Figurnov, Mohamed & Mnih, Measure-Valued Derivatives for Approximate Bayesian Inference, 2019.
    """

    weighs_kl = True

    def __init__(self, coupled: bool = True, kl: str = "analytic") -> None:
        super().__init__()
        if not isinstance(coupled, bool):
            raise UsageError(f"coupled={coupled!r} is not one of true, false")
        self.coupled = coupled
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if layers := not_one_latent(q, "leave-one-out"):
            return layers
        if not is_diagonal_gaussian(q):
            given = f"{describe(q)} with event shape {tuple(q.event_shape)}"
            return f"needs a diagonal Gaussian posterior, Independent(Normal(loc, scale), 1), not a {given}"
        return super().supports(q, target, num_samples) or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        loc, scale = parameters_of(q).values()
        with torch.no_grad():
            normal = torch.randn((num_samples, *loc.shape), dtype=loc.dtype, device=loc.device)
            z = torch.addcmul(loc, scale, normal)  # what `draw` gives under the same seed
            moved = torch.addcmul(loc, scale, self._noise(normal))
            points = _replace_each(z, moved, len(q.event_shape))
            f_moved = integrand(q, target, points.flatten(0, 2), self.kl)
        f = integrand(
            q, target, z, self.kl, log_prob(cut(q), z, GaussianNoise(normal, loc.detach(), scale.detach()))
        )

        event = tuple(range(-len(q.event_shape), 0))
        above, below, wide = _by_coordinate(f_moved, points, q).mean(1)
        weight_loc = (above - below) / (_ROOT_TWO_PI * scale.detach())
        centre = f.detach().mean(0).reshape(*q.batch_shape, *(1 for _ in event))
        weight_scale = (wide - centre) / scale.detach()
        term = (loc * weight_loc + scale * weight_scale).sum(event)
        elbo = term - term.detach() + f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(surrogate=elbo, value=elbo)

    def _noise(self, normal: Float[Tensor, "*shape"]) -> Float[Tensor, "3 *shape"]:
        """W, −W and M for noise N of the sample, (3, *normal.shape)."""
        rayleigh = _rayleigh(normal)
        other = rayleigh if self.coupled else _rayleigh(normal)
        return torch.stack((rayleigh, -other, _maxwell(normal if self.coupled else torch.randn_like(normal))))


def _rayleigh(like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Density w exp(−w²/2) on w > 0."""
    return torch.empty_like(like).exponential_().mul_(2).sqrt_()


def _maxwell(normal: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Density m² exp(−m²/2) / √(2π), coupled to a normal N: N / M is uniform on (0, 1), independent of M.

    M is the length of a normal vector in 3 dimensions whose first component is N, with N's sign; on the
    sphere a component is uniform (Archimedes).
    """
    return torch.copysign(torch.hypot(normal, _rayleigh(normal)), normal)


def _replace_each(
    z: Float[Tensor, "*shape"], moved: Float[Tensor, "3 *shape"], event_dims: int
) -> Float[Tensor, "3 D *shape"]:
    """Copies of z (S, *batch, *event), each with one coordinate from moved (3, S, *batch, *event).

    Returns (3, D, S, *batch, *event), D the number of coordinates.
    """
    flat, moved = z.flatten(-event_dims), moved.flatten(-event_dims)
    dimension = flat.shape[-1]
    one = torch.eye(dimension, dtype=torch.bool, device=z.device)
    one = one.reshape(dimension, *(1,) * (flat.dim() - 1), dimension)
    return torch.where(one, moved.unsqueeze(1), flat).reshape(3, dimension, *z.shape)


def _by_coordinate(
    f: Float[Tensor, "points *batch"], points: Float[Tensor, "3 D *sample_shape"], q: Distribution
) -> Float[Tensor, "3 *sample_shape"]:
    """f at the points, (3, S, *batch, *event): entry j is of the copy whose coordinate j was replaced."""
    kinds, dimension, num_samples = points.shape[:3]
    f = f.reshape(kinds, dimension, num_samples, *q.batch_shape).movedim(1, -1)
    return f.reshape(kinds, num_samples, *q.batch_shape, *q.event_shape)
