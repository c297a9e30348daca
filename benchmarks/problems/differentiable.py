"""Whether log p(x|z) can be differentiated where an estimator does so: told, and not answered with zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target

_SEED = 0


def detachment(q: Distribution, target: Target, estimator: Estimator) -> str | None:
    """Why the path through z is lost, in one line: log_likelihood is detached from it; or None.

    A likelihood that is the same for every z has the derivative zero, and passes. The global generators
    are left as they were.

    Args:
        q: batch shape (B,).
        target: of the same data.
        estimator: asked whether it differentiates the target.
    """
    if estimator.derivatives < 1 or estimator.deterministic:
        return None
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(_SEED)
        with torch.no_grad():
            z = q.sample(torch.Size((2,)))
        if not z.is_floating_point():
            return None
        try:
            f = target.log_likelihood(z.requires_grad_())
            unreached = f.shape[:1] == (2,) and not _reaches(f, z)
        except Exception:  # a user's function may raise anything; where it is measured it is told
            return None
        if not unreached or bool((f[0] == f[1]).all()):
            return None
    return "log_likelihood depends on z, but not differentiably (detach, no_grad or rounding inside it?)"


def _reaches(f: Tensor, z: Tensor) -> bool:
    """Whether there is a path from f back to z."""
    if not f.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(f.sum(), z, allow_unused=True)
    return gradient is not None
