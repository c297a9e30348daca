"""Whether estimators can be used on problems: asked before anything runs, each of them made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from ...estimators.errors import UsageError
from ...estimators.isolation import drawing_from
from ...estimators.plugins.registry import create
from ..problems.specifications import label_of_text

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

    from ...estimators.base import Target


class Support:
    """The estimators and problems of a grid, to ask."""

    def __init__(self) -> None:
        self.estimator = lru_cache(maxsize=None)(create)
        self.check_model = lru_cache(maxsize=None)(_check_model)
        self._posterior = lru_cache(maxsize=None)(_posterior_and_target)
        self._defect = lru_cache(maxsize=None)(self._find_defect)

    def why_not(self, estimator: str, problem: str, batch_size: int | None, num_samples: int) -> str | None:
        """What an estimator says against a problem at S; None where it supports it, or breaks on being asked.

        Raises:
            UsageError: the estimator or the problem cannot be made, or the problem does not work.
        """
        from ...estimators.support import refusal
        from ..problems.posterior_checks import properties

        asked = self.estimator(estimator)
        q, target, _ = self._posterior(problem, batch_size)
        try:
            reason = refusal(asked, q, target, num_samples)
            return reason or self._defect(problem, batch_size, *properties(asked, target))
        except Exception:  # a plugin may raise anything: the case then fails with its reason when it runs
            return None

    def _find_defect(self, problem: str, batch_size: int | None, path: bool, score: bool) -> str | None:
        from ..problems.posterior_checks import defect

        _, _, (posterior, eta) = self._posterior(problem, batch_size)
        return defect(posterior, eta, path, score)


def _posterior_and_target(
    problem: str, batch_size: int | None
) -> tuple[Distribution, Target, tuple[Callable[[Tensor], Distribution], Tensor]]:
    from ..problems.forward_checks import check_likelihood, checked_eta, posterior_and_target
    from ..problems.point import placed

    try:
        loaded, x = placed(problem, batch_size=batch_size)
        with drawing_from(0):
            eta = checked_eta(loaded, x)
            q, target = posterior_and_target(loaded, x, eta)
            check_likelihood(loaded, x, q)
            return q, target, (loaded.posterior, eta.detach())
    except UsageError as error:
        raise _of_problem(problem, error) from error


def _check_model(
    problem: str, batch_size: int | None, seed: int, device: str, dtype: str, route: str
) -> None:
    """See that a problem can be measured by a route, as every measurement does: once for all cases.

    Raises:
        UsageError: the first thing that is wrong with it.
    """
    from ..gradients import seeded
    from ..problems.as_trained import as_trained
    from ..problems.model_checks import check_model
    from ..problems.point import placed

    try:
        loaded, x = placed(problem, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
        with as_trained(), seeded(seed, x.device):
            check_model(loaded, x, route)
    except UsageError as error:
        raise _of_problem(problem, error) from error


def _of_problem(problem: str, error: UsageError) -> UsageError:
    """The same, said of a problem."""
    label, text = label_of_text(problem), str(error)
    return UsageError(f"problem {text if text.startswith(label) else f'{label}: {text}'}")
