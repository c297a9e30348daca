"""What can be run of what was asked: checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..cases.grid import Case, label_of_text
from ..problems.forward_checks import checked_eta, posterior_and_target
from ..problems.placement import check_device, check_dtype
from ..problems.point import placed


@dataclass(frozen=True)
class Plan:
    """Cases to run, and cases left out with the reason."""

    cases: list[Case]
    skipped: list[tuple[Case, str]]


def make_plan(cases: Sequence[Case], chosen: Sequence[str]) -> Plan:
    """Ask every estimator whether it supports its cases.

    Args:
        cases: the grid.
        chosen: estimators that the user named; none of their cases being possible is an error.

    Raises:
        UsageError: what was asked for cannot be run: a device, a size, a plugin that does not load, an
            estimator that supports nothing of what was asked of it.
    """
    for device, dtype in {(case.device, case.dtype) for case in cases}:
        check_device(device)
        check_dtype(dtype)
    estimators = {name: create(name) for name in {case.estimator for case in cases}}
    posteriors = {
        key: _posterior_and_target(*key)
        for key in {(case.problem, case.batch_size) for case in cases if case.problem}
    }
    possible, skipped = [], []
    for case in cases:
        estimator = estimators[case.estimator]
        given = posteriors.get((case.problem, case.batch_size))
        reason = None if given is None else _why_not(estimator, *given, _num_samples(case, estimator))
        if reason is None:
            possible.append(case)
        else:
            skipped.append((case, reason))
    _check_chosen(chosen, possible, skipped)
    if not possible:
        raise UsageError(f"nothing to run: {_describe(*skipped[0])}" if skipped else "nothing to run")
    return Plan(possible, skipped)


def _check_chosen(
    chosen: Sequence[str], possible: Sequence[Case], skipped: Sequence[tuple[Case, str]]
) -> None:
    for estimator in chosen:
        if not any(case.estimator == estimator and case.problem for case in possible):
            refused = next(item for item in skipped if item[0].estimator == estimator)
            raise UsageError(_describe(*refused))


def _describe(case: Case, reason: str) -> str:
    return f"{label_of_text(case.estimator)} cannot be used on {label_of_text(case.problem)}: {reason}"


def _posterior_and_target(problem: str, batch_size: int | None) -> tuple[Distribution, Target]:
    try:
        loaded, x = placed(problem, batch_size=batch_size)
        return posterior_and_target(loaded, x, checked_eta(loaded, x))
    except UsageError as error:
        raise UsageError(f"problem {label_of_text(problem)}: {error}") from error


def _num_samples(case: Case, estimator: Estimator) -> int:
    if case.benchmark != "certify" or not isinstance(estimator.min_samples, int):
        return case.num_samples
    return max(case.num_samples, estimator.min_samples)


def _why_not(estimator: Estimator, q: Distribution, target: Target, num_samples: int) -> str | None:
    try:
        return estimator.supports(q, target, num_samples)
    except Exception:  # a plugin may raise anything: the case then fails with its reason when it runs
        return None
