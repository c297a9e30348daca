"""The closed-form KL of Bernoulli and categorical posteriors, where some state has probability zero too.

torch's own has the right value, 0 · log 0 = 0, and for its gradient NaN: 0 · ∞ in the chain rule of a masked
logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import softplus

from .families import family_of


def kl(q: Distribution, prior: Distribution) -> Float[Tensor, "*batch"] | None:
    """KL(q || prior), (*batch), torch's number; None for other pairs.

    Args:
        q: Bernoulli, Categorical or OneHotCategorical, or independent ones.
        prior: the same, of q's batch shape.
    """
    if isinstance(q, td.Independent) and isinstance(prior, td.Independent):
        summed = q.reinterpreted_batch_ndims
        each = kl(q.base_dist, prior.base_dist) if summed == prior.reinterpreted_batch_ndims else None
        return each if each is None or not summed else each.sum(tuple(range(-summed, 0)))
    family = family_of(q)
    if family is not family_of(prior):
        return None
    if family is td.Bernoulli:
        assert isinstance(q, td.Bernoulli)
        assert isinstance(prior, td.Bernoulli)
        one = _term(q.probs, prior.probs, q.logits, prior.logits, _log_sigmoid)
        zero = _term(1 - q.probs, 1 - prior.probs, -q.logits, -prior.logits, _log_sigmoid)
        return one + zero
    if family in (td.Categorical, td.OneHotCategorical):
        q, prior = (d._categorical if isinstance(d, td.OneHotCategorical) else d for d in (q, prior))
        assert isinstance(q, td.Categorical)
        assert isinstance(prior, td.Categorical)
        return _term(q.probs, prior.probs, q.logits, prior.logits).sum(-1)
    return None


def _log_sigmoid(logits: Tensor) -> Tensor:
    return -softplus(-logits)


def _term(
    probs: Tensor,
    prior_probs: Tensor,
    logits: Tensor,
    prior_logits: Tensor,
    log: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Tensor:
    """p log(p / prior) of each state: 0 where p is 0, and else infinite where the prior is."""
    never = probs == 0
    # Chosen before the logarithms: what is left out afterwards still meets 0 · ∞ in the backward pass.
    left = log(torch.where(never, 0.0, logits)) - log(torch.where(never, 0.0, prior_logits))
    # Before the product, so that the gradient is not finite either.
    left = torch.where((prior_probs == 0) & ~never, math.inf, left)
    return torch.where(never, 0.0, probs) * left
