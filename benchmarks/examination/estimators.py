"""Which estimators of the catalogue can be used on a problem, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import catalogue, create
from ...estimators.text import one_line
from ..problems.differentiable import detachment
from ..problems.model_checks import Look
from ..problems.posterior_checks import defect, properties

_SIZES = (1, 2, 4, 8)
_SAMPLED = "kl=sampled"  # the parameter of most that refuse a posterior without a closed-form KL


def usable_estimators(look: Look) -> tuple[list[str], dict[str, list[str]]]:
    """Specifications that can be used at some S of 1, 2, 4, 8; and reason -> names of those that cannot.

    What needs a closed-form KL that there is not is tried with a sampled one.

    Args:
        look: of a problem without faults.
    """
    reason_against = _reasons(look)
    usable: list[str] = []
    refused: dict[str, list[str]] = {}
    for name in catalogue():
        reason = reason_against(name)
        if reason is not None and _SAMPLED in reason:
            name = f"{name}[{_SAMPLED}]"
            reason = reason_against(name)
        if reason is None:
            usable.append(name)
        else:
            refused.setdefault(reason, []).append(name)
    return usable, refused


def _reasons(look: Look) -> Callable[[str], str | None]:
    """Why a specification cannot be used here, or None; what several estimators need is looked at once."""
    eta, q, target, posterior = look.eta, look.q, look.target, look.problem.posterior
    assert eta is not None and q is not None and target is not None
    found_defect = cache(lambda path, score: defect(posterior, eta, path, score))
    detached: dict[bool, str | None] = {}

    def detachment_of(estimator: Estimator) -> str | None:
        differentiates = estimator.derivatives > 0 and not estimator.deterministic
        if differentiates not in detached:
            detached[differentiates] = detachment(q, target, estimator)
        return detached[differentiates]

    def reason_against(specification: str) -> str | None:
        try:
            estimator = create(specification)
            reasons = [estimator.supports(q, target, size) for size in _SIZES]
            if None not in reasons:
                return reasons[-1]
            return found_defect(*properties(estimator, target)) or detachment_of(estimator)
        except UsageError as error:
            return str(error)
        except Exception as error:  # a plugin may raise anything
            return f"{type(error).__name__}: {one_line(error)}"

    return reason_against
