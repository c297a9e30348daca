"""How many samples an estimator may draw for so many evaluations of log p(x|z)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ....estimators.base import Target
    from ...problems.protocol import Problem

_TRIED = 4  # S whose evaluations are counted: they are a constant and a multiple of S


@cache
def samples_for(problem: str, estimator: str, evaluations: int) -> int | None:
    """The largest S that takes at most so many evaluations a datum; None where no S does.

    Args:
        problem: its specification; asked at its initial parameters.
        estimator: its specification.
        evaluations: at most.
    """
    low = next((s for s in range(1, _TRIED + 1) if _count(problem, estimator, s) is not None), None)
    if low is None:
        return None
    first, second = _count(problem, estimator, low), _count(problem, estimator, 2 * low)
    each = 1 if first is None or second is None else max((second - first) / low, 1)
    start = min(evaluations, round(low + (evaluations - (first or 0)) / each) + 1)
    for num_samples in range(start, 0, -1):
        count = _count(problem, estimator, num_samples)
        if count is not None and count <= evaluations:
            return num_samples
    return None


@cache
def _count(problem: str, estimator: str, num_samples: int) -> int | None:
    """Evaluations of one estimate of two data; None where the estimator does not support it."""
    import torch

    from ....estimators.plugins.registry import create
    from ...gradients import count_evaluations, frozen, seeded

    loaded, eta, target = _where(problem)
    one = create(estimator)
    q = loaded.posterior(eta)
    if one.supports(q, target, num_samples) is not None:
        return None
    with seeded(0, torch.device("cpu")), frozen(loaded.decoder):
        one.init(q, target)
        one.eval()
        return count_evaluations(loaded, one, target, eta, num_samples)


@cache
def _where(problem: str) -> tuple[Problem, Tensor, Target]:
    from ...problems.as_trained import eta_of
    from ...problems.point import placed

    loaded, x = placed(problem, batch_size=2, seed=0, device=None, dtype=None)
    return loaded, eta_of(loaded, x).detach(), loaded.target(x)
