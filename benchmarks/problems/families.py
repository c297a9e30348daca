"""Posteriors and priors as functions of eta, (*batch, P) and D -> batch shape (*batch)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution


def gaussian(eta: Tensor, d: int) -> Distribution:
    """Diagonal, eta = (μ, log σ)."""
    return td.Independent(
        td.Normal(eta[..., :d], eta[..., d:].exp(), validate_args=False), 1, validate_args=False
    )


def full_gaussian(eta: Tensor, d: int) -> Distribution:
    """N(μ, L Lᵀ), eta = (μ, log of L's diagonal, what is below it row by row)."""
    rows, columns = torch.tril_indices(d, d, -1)
    tril = torch.diag_embed(eta[..., d : 2 * d].exp())
    tril[..., rows, columns] = eta[..., 2 * d :]
    return td.MultivariateNormal(eta[..., :d], scale_tril=tril, validate_args=False)


def bernoulli(eta: Tensor, d: int) -> Distribution:
    """Independent bits, eta their logits."""
    return td.Independent(td.Bernoulli(logits=eta, validate_args=False), 1, validate_args=False)


def categorical(eta: Tensor, d: int) -> Distribution:
    """Independent one-hot variables (D, K), eta their logits in a row."""
    logits = eta.unflatten(-1, (d, -1))
    return td.Independent(td.OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)
