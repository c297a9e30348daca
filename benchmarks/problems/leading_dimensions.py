"""Whether log_likelihood and the posterior take leading batch dimensions and act on each datum alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.errors import UsageError
from .faults import Faults, raise_first
from .forward_checks import log_likelihood, what_failed
from .module_modes import called
from .protocol import Problem

_ELSEWHERE = "or use route='full', which takes the model as it is"


def check_leading_dimensions(problem: Problem, x: Tensor, eta: Tensor) -> None:
    """Show two replicates at once, then with every other datum of each replaced, then once more.

    Args:
        problem: on its device.
        x: (B, ...).
        eta: (B, P).

    Raises:
        UsageError: what does not take leading dimensions, or couples data; and what to do.
    """
    raise_first(leading_faults(problem, x, eta))


def leading_faults(problem: Problem, x: Tensor, eta: Tensor) -> Faults:
    """What `check_leading_dimensions` raises."""
    data = len(eta)
    stacked = eta.expand(2, *eta.shape)
    q = _posterior(problem, stacked)
    z = q.sample(torch.Size((2,)))  # (2, 2, B, *event)
    kept = (torch.arange(2, device=z.device).unsqueeze(1) + torch.arange(data, device=z.device)) % 2 == 0
    yield from likelihood_faults(problem, x, z, kept)
    yield from _posterior_faults(problem, stacked, z, kept)


def likelihood_faults(problem: Problem, x: Tensor, z: Tensor, kept: Tensor) -> Faults:
    """What is wrong with log_likelihood of replicates.

    Args:
        problem: on its device.
        x: (B, ...).
        z: (S, 2, B, *event).
        kept: (2, B), the data whose z stays where the others' is replaced.
    """
    f, again = (log_likelihood(problem, x, z, 3).detach() for _ in range(2))
    if f.shape != z.shape[:3]:
        return  # said by the estimators
    among = kept.view(2, z.shape[2], *[1] * (z.dim() - 3))
    rolled = z.flatten(1, 2).roll(1, 1).view_as(z)
    replaced = log_likelihood(problem, x, torch.where(among, z, rolled), 3).detach()
    if _differ(f, again):
        yield (
            "log_likelihood gives the same z another value each time (dropout, noise of its own?): call "
            f"{called(problem.decoder, 'decoder')}.eval(), or use route='full' to count its noise"
        )
    elif _differ(f[:, kept], replaced[:, kept]):
        yield (
            "log_likelihood of a datum depends on the z of others (batch statistics, a sum over the batch?): "
            f"let it act on each datum and replicate alone, {_ELSEWHERE}"
        )


def _posterior(problem: Problem, stacked: Tensor) -> Distribution:
    """q for eta (2, B, P)."""
    try:
        q = problem.posterior(stacked)
        what = f"has batch shape {tuple(q.batch_shape)}"
    except Exception as error:  # a user's method may raise anything
        q, what = None, f"fails ({what_failed(error)})"
    if q is None or q.batch_shape != stacked.shape[:2]:
        raise UsageError(
            f"the posterior {what} for eta {tuple(stacked.shape)}, expected batch shape "
            f"{tuple(stacked.shape[:2])}: index eta from the last dimension (eta[..., :D], "
            f"chunk(2, dim=-1)), {_ELSEWHERE}"
        )
    return q


def _posterior_faults(problem: Problem, stacked: Tensor, z: Tensor, kept: Tensor) -> Faults:
    rolled = stacked.flatten(0, 1).roll(1, 0).view_as(stacked)
    mixed = problem.posterior(torch.where(kept.unsqueeze(-1), stacked, rolled))
    try:
        here, there = problem.posterior(stacked).log_prob(z), mixed.log_prob(z)
    except Exception:  # no density, or z outside the replaced posterior's support: what a user's class raises
        return
    if _differ(here[:, kept].detach(), there[:, kept].detach()):
        yield (
            "the posterior of a datum depends on the eta of others (softmax over the batch dimension?): "
            f"let it act on each datum alone, {_ELSEWHERE}"
        )


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors that should be the same are not, beyond rounding."""
    tolerance = max(1e-5, 100 * torch.finfo(a.dtype).eps)
    scale = float(a.double().square().mean().sqrt())
    return bool((a - b).numel()) and float((a - b).abs().max()) > tolerance * scale
