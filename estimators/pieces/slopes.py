"""f between the states of discrete variables, and its slope."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..posteriors.distributions import check_events
from .objective import integrand
from .variables import Variables, relaxed_log_prob


def relaxed_integrand(
    q: Distribution, target: Target, kl: str, variables: Variables, codes: Float[Tensor, "S *batch D K"]
) -> Float[Tensor, "S *batch"]:
    """f, (S, *batch), at states in one-hot code or at what lies between them, without a path to φ.

    With ``kl="sampled"`` log p(z) − log q(z) is linear between the states.
    """
    z = variables.z(codes)
    return _likelihood(q, target, z) + _rest(q, target, kl, variables, codes, z)


def with_slope(
    q: Distribution,
    target: Target,
    kl: str,
    variables: Variables,
    codes: Float[Tensor, "S *batch D K"],
    attached: bool = False,
) -> tuple[Float[Tensor, "S *batch"], Float[Tensor, "S *batch D K"]]:
    """f as of `relaxed_integrand`, and ∂f/∂codes, by one pass; of a Bernoulli variable state 1 has ∂f/∂z.

    With ``attached`` the slope can be differentiated again, in what ``codes`` depend on.

    Raises:
        UsageError: log_likelihood has no derivative in z.
    """
    with torch.enable_grad():
        point = codes if codes.requires_grad else codes.detach().requires_grad_()
        z = variables.z(point)
        likelihood = _likelihood(q, target, z)
        slope = _derivative(likelihood, point, attached)
        if slope is None:
            raise UsageError("log_likelihood has no derivative in z, which this estimator needs")
        rest = _rest(q, target, kl, variables, point, z)
        of_rest = None if isinstance(rest, float) else _derivative(rest, point, attached)
    return likelihood + rest, slope if of_rest is None else slope + of_rest


def _likelihood(
    q: Distribution, target: Target, z: Float[Tensor, "S *batch_event"]
) -> Float[Tensor, "S *batch"]:
    return integrand(q, replace(target, prior=None), z, "analytic")


def _rest(
    q: Distribution,
    target: Target,
    kl: str,
    variables: Variables,
    codes: Float[Tensor, "S *batch D K"],
    z: Float[Tensor, "S *batch_event"],
) -> Float[Tensor, "S *batch"] | float:
    """log p(z) − log q(z) where the KL is sampled, else 0."""
    if kl != "sampled" or target.prior is None:
        return 0.0
    check_events(q, target.prior)
    return relaxed_log_prob(target.prior, z) - (codes * variables.logits.detach()).sum((-2, -1))


def _derivative(
    of: Float[Tensor, "S *batch"], point: Float[Tensor, "S *batch D K"], attached: bool
) -> Float[Tensor, "S *batch D K"] | None:
    if not of.requires_grad:
        return None
    (found,) = torch.autograd.grad(
        of.sum(), point, retain_graph=True, create_graph=attached, allow_unused=True
    )
    return found
