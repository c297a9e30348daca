"""The estimator that is certified: fresh ones of it, and what its certificates say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..problems.arguments import shown
from ..problems.point import resolve_estimator
from ..rows.certificate import ALARM_RATE, Certificate
from ..rows.certificate_checks import Check
from .levels import Settings

Given = str | Estimator | Callable[[], Estimator]


def builder(given: Given) -> Callable[[], Estimator]:
    """What returns a fresh estimator each time.

    Raises:
        UsageError: a specification that names none, or what is none.
    """
    if isinstance(given, str):
        create(given)  # what is wrong with it is told now
        return partial(create, given)
    if isinstance(given, Estimator):
        return partial(resolve_estimator, given)
    if not callable(given):
        raise UsageError(f"{shown(given)} is no estimator: give one, its specification, or what makes one")
    return given


def certificate_of(
    build: Callable[[], Estimator],
    checks: Sequence[Check],
    settings: Settings,
    skipped: dict[str, str] | None = None,
) -> Certificate:
    """The certificate of an estimator on what was checked, or left out with a reason."""
    try:
        estimator = build()
        label, objective, unbiased = estimator.label, estimator.objective, estimator.unbiased
    except Exception:
        label, objective, unbiased = getattr(build, "__name__", "estimator"), "elbo", True
    return Certificate(
        label,
        objective,
        bool(unbiased),
        tuple(checks),
        settings.confidence,
        settings.tolerance,
        ALARM_RATE,
        skipped or {},
    )
