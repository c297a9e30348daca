"""f at z and at what differs from it in one variable."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from .objective import integrand_at
from .variables import Variables

_ENTRIES = 2**24  # of z, that are evaluated at a time


@torch.no_grad()
def at_every_state(
    q: Distribution,
    target: Target,
    kl: str,
    variables: Variables,
    codes: Float[Tensor, "S *batch D K"],
    f: Float[Tensor, "S *batch"],
) -> Float[Tensor, "S *batch D K"]:
    """f with each variable in turn in each of its states, the others as in ``codes``, where f is known.

    D(K − 1) evaluations a sample. A state of probability zero is not evaluated: it has the value at z itself.
    """
    samples, states = len(codes), variables.states
    size, columns = codes.shape[-2], []
    at_once = max(1, _ENTRIES // max(1, codes.numel() * (states - 1)))
    for first in range(0, size, at_once):
        chosen = range(first, min(first + at_once, size))
        moved = torch.cat([_moved(codes, d, shift, variables) for d in chosen for shift in range(1, states)])
        found = integrand_at(q, target, variables.z(moved), kl)
        columns.append(found.reshape(len(chosen), states - 1, samples, *f.shape[1:]))
    shifted = torch.cat([f.detach().expand(size, 1, *f.shape), torch.cat(columns)], 1)
    shifted = shifted.permute(*range(2, shifted.dim()), 0, 1)  # (S, *batch, D, K), by the shift of the state
    state = torch.arange(states, device=f.device)
    return shifted.gather(-1, (state - codes.argmax(-1, keepdim=True)) % states)


def _moved(
    codes: Float[Tensor, "S *batch D K"], d: int, shift: int, variables: Variables
) -> Float[Tensor, "S *batch D K"]:
    """``codes`` with variable d moved on by ``shift`` states, where it can be there."""
    other = codes[..., d, :].roll(shift, -1)
    possible = (other * variables.probs[..., d, :]).sum(-1, keepdim=True) > 0
    moved = codes.clone()
    moved[..., d, :] = torch.where(possible, other, codes[..., d, :])
    return moved
