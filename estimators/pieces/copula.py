"""Uniform variables that avoid one another: n of them, every pair coupled alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor


def dirichlet_uniforms(n: int, shape: Sequence[int], like: Tensor) -> Float64[Tensor, "n ..."]:
    """u = (1 − d)^{n−1}, d ~ Dirichlet(1_n): (n, *shape), each uniform; of n = 2 antithetic, u and 1 − u.

    In float64 and from the sum of the others, so that small u are as exact as large ones.

    References:
        Dimitriev & Zhou, ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables, 2021,
        section 3.
    """
    clocks = torch.empty(n, *shape, dtype=torch.float64, device=like.device).exponential_()
    before = torch.cat((torch.zeros_like(clocks[:1]), clocks[:-1].cumsum(0)))
    after = torch.cat((clocks[1:].flip(0).cumsum(0).flip(0), torch.zeros_like(clocks[:1])))
    others = before + after
    return (others / (others + clocks)).pow(n - 1)


def both_below(p: Float64[Tensor, "*shape"], n: int) -> Float64[Tensor, "*shape"]:
    """P(u_i < p and u_j < p) of two of the n: max(2 p^{1/(n−1)} − 1, 0)^{n−1}."""
    return (2 * p.pow(1 / (n - 1)) - 1).clamp_min(0).pow(n - 1)
