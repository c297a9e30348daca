"""Implicitly reparameterized draws from the von Mises distribution, which torch can only sample."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .families import family_of, innermost

_NODES = 64
_NEGLIGIBLE = 40.0  # −log of the density, relative to its peak, beyond which nothing counts


def is_von_mises(q: Distribution) -> bool:
    """Whether q is a von Mises distribution, or independent ones."""
    return family_of(innermost(q)) is td.VonMises


def rsample(q: Distribution, num_samples: int) -> Float[Tensor, "{num_samples} *batch_event"]:
    r"""Draw z (S, *batch, *event) in [−π, π), differentiable once in the location and concentration.

    z is torch's rejection sample. With F the distribution function of the density q, F(z; μ, κ) is held
    fixed: dz/dμ = 1, dz/dκ = −(∂F/∂κ)/q(z). The functions integrated under q have to be periodic in z.

    References:
        Figurnov, Mohamed & Mnih, Implicit Reparameterization Gradients, 2018, section 4 (von Mises).
    """
    base = innermost(q)
    assert isinstance(base, td.VonMises)
    with torch.no_grad():
        z = base.sample(torch.Size((num_samples,)))
    attached: Tensor = _Attach.apply(z, base.loc, base.concentration)
    return attached


def concentration_derivative(
    angle: Float[Tensor, "*#shape"], concentration: Float[Tensor, "*#shape"]
) -> Float64[Tensor, "*shape"]:
    r"""dz/dκ at z − μ = angle in [−π, π], at fixed F: float64, broadcast.

    −(∂F/∂κ)/q = −∫_{−π}^{y} (cos t − A) e^{κ(cos t − cos y)} dt, A = I_1(κ)/I_0(κ), for y = −|angle|, and
    odd in the angle. No power is positive there, so that neither large κ nor the tails overflow.
    """
    kappa = concentration.double()
    y = angle.double().abs()
    mean = torch.special.i1e(kappa) / torch.special.i0e(kappa)
    # cos y − cos(y + w) >= 1 − cos w >= 2 (w/π)², as long as y + w <= π.
    width = torch.minimum(math.pi - y, math.pi * (_NEGLIGIBLE / (2 * kappa)).sqrt()).clamp_min(0.0)
    total = torch.zeros_like(y * kappa)
    for point, weight in _legendre():
        step = width * point
        # cos(y + s) − cos y, without its cancellation.
        power = -2 * kappa * (y + step / 2).sin() * (step / 2).sin()
        total = total + weight * ((y + step).cos() - mean) * power.exp()
    return angle.sign() * width * total


class _Attach(torch.autograd.Function):
    """z, with the derivatives at a fixed value of the distribution function."""

    @staticmethod
    def forward(ctx, z: Tensor, loc: Tensor, concentration: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z, loc, concentration)
        return z.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor, Tensor]:  # type: ignore[no-untyped-def]
        z, loc, concentration = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise NotImplementedError("a von Mises draw can be differentiated only once")
        angle = torch.remainder((z - loc).double() + math.pi, 2 * math.pi) - math.pi
        slope = concentration_derivative(angle, concentration).to(grad.dtype)
        return None, grad.sum_to_size(loc.shape), (grad * slope).sum_to_size(concentration.shape)


@lru_cache(maxsize=1)
def _legendre() -> tuple[tuple[float, float], ...]:
    """Gauss-Legendre points and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    return tuple((float(p), float(w)) for p, w in zip((points + 1) / 2, weights / 2, strict=True))
