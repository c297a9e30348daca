"""What the estimators of multi-sample bounds do with importance weights, in logarithms."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Target
from ..kl_weight import parameters_of_weight


def unweighable(target: Target) -> str | None:
    """Why samples cannot be weighted by p(x, z) / q(z), or None."""
    if target.prior is None:
        return "needs a prior: importance weights are p(x, z) / q(z)"
    if weight := parameters_of_weight(target.kl_weight):
        return f"needs kl_weight=1, not {weight}: importance weights p(x, z) / q(z) have the prior whole"
    return None


def log_sum_of_others(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
    """log Σ_{l≠k} w_l for every k, of log w (K, *batch); −∞ where K = 1.

    From the sums before and after k: subtracting w_k from the sum of all would cancel where it dominates.
    """
    nothing = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat((nothing, log_w[:-1].logcumsumexp(0)))
    after = torch.cat((log_w[1:].flip(0).logcumsumexp(0).flip(0), nothing))
    return torch.logaddexp(before, after)
