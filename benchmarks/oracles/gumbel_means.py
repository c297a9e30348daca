"""Means of Gumbel-softmax gradients for one Bernoulli variable, by quadrature over the logistic noise.

z = σ((φ + X)/τ) or 1[φ + X > 0], X logistic, the difference of two Gumbel variables; the functions of z are
given as functions of a number, elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_END = 45.0  # beyond which the noise has less than 1e-19 of its mass
_PANEL, _NODES = 0.5, 12
_Function = Callable[[Tensor], Tensor]


class LogisticNodes(NamedTuple):
    """Nodes x and their weights, of which those of E h(X) sum to 1."""

    x: Float[Tensor, "N"]
    weights: Float[Tensor, "N"]


def logistic_nodes(logit: float, temperature: float) -> LogisticNodes:
    """Gauss-Legendre panels, short on the scale of the noise and, about x = −φ, on that of τ too."""
    steps = np.arange(-_END, _END + _PANEL, _PANEL)
    ends = np.unique(np.clip(np.concatenate((steps, temperature * steps - logit)), -_END, _END))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(ends)[:, None] / 2
    x = torch.as_tensor((ends[:-1, None] + half * (1 + nodes)).ravel())
    lengths = torch.as_tensor((half * weights).ravel())
    return LogisticNodes(x, lengths * torch.sigmoid(x) * torch.sigmoid(-x))


def gumbel_softmax_value(f: _Function, logit: float, temperature: float) -> float:
    """E f(σ((φ + X)/τ)), the relaxed objective without a KL."""
    x, weights = logistic_nodes(logit, temperature)
    return float(weights @ f(torch.sigmoid((logit + x) / temperature)))


def gumbel_softmax_gradient(slope: _Function, logit: float, temperature: float) -> float:
    """The derivative of `gumbel_softmax_value` in φ, and mean of ``gumbel-softmax``; slope is f′."""
    x, weights = logistic_nodes(logit, temperature)
    soft = torch.sigmoid((logit + x) / temperature)
    return float(weights @ (slope(soft) * _jacobian(logit + x, temperature)))


def straight_through_gumbel_gradient(slope: _Function, logit: float, temperature: float) -> float:
    """The mean of ``straight-through-gumbel-softmax``, and of ``gumbel-rao`` whatever its k."""
    x, weights = logistic_nodes(logit, temperature)
    hard = (logit + x > 0).to(x.dtype)
    return float(weights @ (slope(hard) * _jacobian(logit + x, temperature)))


def _jacobian(noisy: Float[Tensor, "N"], temperature: float) -> Float[Tensor, "N"]:
    return torch.sigmoid(noisy / temperature) * torch.sigmoid(-noisy / temperature) / temperature
