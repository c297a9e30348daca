"""Quadratics in z with known expectation under q: what control variates of pathwise gradients are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ..posteriors.distributions import describe
from ..posteriors.families import family_of, innermost
from ..posteriors.von_mises import is_von_mises


class Quadratic(NamedTuple):
    """f̂(z) = bᵀδ + ½ δᵀ B δ, δ = z − m, m the mean of q without a path back to φ.

    An event of any shape counts as a vector of D coordinates. Its expectation is exact:
    E_q f̂ = bᵀ(E_q z − m) + ½ tr(B Cov_q z).

    Attributes:
        slope: b, broadcastable to (*batch, D).
        curvature: B, symmetric, broadcastable to (*batch, D, D).
    """

    slope: Float[Tensor, "*#batch D"]
    curvature: Float[Tensor, "*#batch D D"]

    def average(self, q: Distribution, z: Float[Tensor, "S *batch_event"]) -> Float[Tensor, "*batch"]:
        """(1/S) Σ_s f̂(z_s), (*batch), for z (S, *batch, *event), attached to φ where z is."""
        delta = flat(q, z - q.mean.detach())
        bent = torch.einsum("...i,...ij->...j", delta, self.curvature)
        return (delta * (self.slope + 0.5 * bent)).sum(-1).mean(0)

    def expectation(self, q: Distribution) -> Float[Tensor, "*batch"]:
        """E_q f̂, (*batch), attached to φ."""
        moved = flat(q, q.mean - q.mean.detach())
        # The value and the gradient of ½ (E z − m)ᵀ B (E z − m) are zero at m.
        return (self.slope * moved).sum(-1) + 0.5 * _trace(q, self.curvature)

    def detach(self) -> Quadratic:
        """The same with coefficients that train nothing."""
        return Quadratic(self.slope.detach(), self.curvature.detach())


def flat(q: Distribution, z: Float[Tensor, "*rows_event"]) -> Float[Tensor, "*rows D"]:
    """z (..., *event) as (..., D)."""
    return z.flatten(-len(q.event_shape))


def unknown_mean(q: Distribution) -> str | None:
    """Why E_q z is not to be had, or None."""
    if is_von_mises(q):
        return "needs a posterior whose mean is known; that of a VonMises is the mean direction, not E_q z"
    try:
        known = len(q.event_shape) > 0 and bool(q.mean.isfinite().all())
    except NotImplementedError:
        known = False
    if known:
        return None
    given = f"{describe(q)} with event shape {tuple(q.event_shape)}"
    return f"needs a posterior over vectors whose mean is known, not a {given}"


def unknown_covariance(q: Distribution) -> str | None:
    """Why E_q z and Cov_q z are not to be had, or None: known for independent coordinates and Gaussians."""
    if is_von_mises(q):
        return unknown_mean(q)
    try:
        known = unknown_mean(q) is None and _is_known(q) and bool(q.variance.isfinite().all())
    except NotImplementedError:
        known = False
    if known:
        return None
    given = f"{describe(q)} with event shape {tuple(q.event_shape)}"
    return f"needs a posterior over vectors whose covariance is known, not a {given}"


def _is_known(q: Distribution) -> bool:
    if _is_full(q):
        return True
    return len(innermost(q).event_shape) == 0


def _is_full(q: Distribution) -> bool:
    return family_of(q) is td.MultivariateNormal


def _trace(q: Distribution, matrix: Float[Tensor, "*#batch D D"]) -> Float[Tensor, "*batch"]:
    """tr(matrix Cov_q z), (*batch), for a symmetric matrix (*batch, D, D)."""
    if _is_full(q):
        covariance: Tensor = q.covariance_matrix  # type: ignore[attr-defined]
        return (matrix * covariance).sum((-2, -1))
    return (matrix.diagonal(dim1=-2, dim2=-1) * flat(q, q.variance)).sum(-1)
