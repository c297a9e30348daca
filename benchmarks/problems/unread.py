"""Whether log p(x|z) leaves alone the latents that the target says it does not read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.posteriors.layered import Layered
from .datum_index import target_of
from .protocol import Problem

_DRAWS = 4
_LARGE = 2**20  # numbers in one draw, of which two have to do


def check_reads(problem: Problem, x: Tensor, q: Distribution) -> None:
    """Draw the latents that `Target.reads` leaves out anew: log p(x|z) has to stay the same.

    A latent that is read all the same would lose its part of the learning signal, a bias that nothing shows.
    What differs between two passes over the same z (dropout) is not judged.

    Raises:
        UsageError: it changes, or the target names a latent that there is not.
    """
    target = target_of(problem, x)
    if target.reads is None or not isinstance(q, Layered):
        return
    for name in target.reads:
        if name not in q.layers:
            latents = ", ".join(q.layers)
            raise UsageError(f"the target reads {name!r}, which is none of the latents {latents}")
    one = len(x) * q.event_shape.numel()
    z = q.sample(torch.Size((_DRAWS if one < _LARGE else 2,)))
    f, again = target.log_likelihood(z), target.log_likelihood(z)
    if not torch.equal(f, again):
        return
    for name in q.layers:
        if name not in target.reads and not _same(target, q, z, name, f):
            names = ", ".join(target.reads) or "none"
            raise UsageError(
                f"the target says that it reads {names} (Target.reads), and log_likelihood changes with "
                f"{name}: name it too, or leave reads out"
            )


def _same(target: Target, q: Layered, z: Tensor, name: str, f: Tensor) -> bool:
    """Whether f stays as it is when the draws of one latent change places."""
    parts = q.split(z)
    parts[name] = parts[name].roll(1, 0)
    return torch.allclose(target.log_likelihood(q.join(parts)), f, equal_nan=True)
