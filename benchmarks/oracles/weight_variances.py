"""Exact variances of gradient estimates for the weights of a linear regression, by algebra.

Shapes: B data of a batch, D weights. The batch-mean gradient is that of (N/B) Σ_i log p(y_i|w) − KL in μ and
log σ, w ~ N(μ, diag σ²), y_i ~ N(wᵀu_i, τ²); the KL is in closed form and adds no noise. With δ = w − μ,
r = y − Uμ, A = UᵀU, b = Uᵀr, c = N/(B τ²) and s_i² = Σ_j u_ij² σ_j² the gradients of one sample are

    shared draws   ∂μ_j: c (b_j − Σ_k A_jk δ_k)        ∂log σ_j: c δ_j (b_j − Σ_k A_jk δ_k)
    local          ∂μ_j: c Σ_i u_ij (r_i − s_i ξ_i)    ∂log σ_j: c Σ_i (r_i − s_i ξ_i) ξ_i u_ij² σ_j²/s_i
    Flipout        as shared draws, with v_ij δ_j for δ_j in datum i, all v_ij = ±1 independent

whose second moments are those of Gaussians and signs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor


class Regression(NamedTuple):
    """A batch of a linear regression and where q is, all float64.

    Attributes:
        u: features (B, D).
        y: (B,).
        loc: μ (D,).
        scale: σ (D,).
        noise: τ.
        size: N.
    """

    u: Tensor
    y: Tensor
    loc: Tensor
    scale: Tensor
    noise: float
    size: int

    @property
    def rate(self) -> float:
        """c."""
        return self.size / (len(self.y) * self.noise**2)

    @property
    def residuals(self) -> Tensor:
        """r (B,)."""
        return self.y - self.u @ self.loc

    @property
    def spreads(self) -> Tensor:
        """s_i² (B,)."""
        return self.u.square() @ self.scale.square()


def shared_draws(at: Regression) -> Float64[Tensor, "P"]:
    """Of reparameterization, one w for all data: variance in (μ, log σ) of one sample."""
    gram, squares = at.u.T @ at.u, at.scale.square()
    crossed = gram.square() @ squares
    own = gram.diagonal().square() * squares
    along = at.u.T @ at.residuals
    loc = crossed
    log_scale = squares * (along.square() + 2 * own + (crossed - own))
    return at.rate**2 * torch.cat((loc, log_scale))


def local_reparameterization(at: Regression) -> Float64[Tensor, "P"]:
    """Of local reparameterization, a draw of its own for each datum's prediction."""
    squares, spreads = at.u.square(), at.spreads.unsqueeze(1)
    weights = squares * at.scale.square() / spreads.sqrt()
    loc = (squares * spreads).sum(0)
    log_scale = (weights.square() * (at.residuals.square().unsqueeze(1) + 2 * spreads)).sum(0)
    return at.rate**2 * torch.cat((loc, log_scale))


def flipout(at: Regression) -> Float64[Tensor, "P"]:
    """Of Flipout, one δ for all data with signs of their own."""
    squares, variances = at.u.square(), at.scale.square()
    loc = (squares * at.spreads.unsqueeze(1)).sum(0)
    others = at.spreads.unsqueeze(1) - squares * variances
    each = (at.residuals.square().unsqueeze(1) + others) * squares
    together = 2 * variances * squares.sum(0).square()
    return at.rate**2 * torch.cat((loc, variances * (each.sum(0) + together)))
