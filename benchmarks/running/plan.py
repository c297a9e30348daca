"""What can be run of what was asked: checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...estimators.errors import UsageError
from ..cases.base import AnyBenchmark, AnyCase
from ..cases.support import Support
from ..problems.placement import check_device, check_dtype
from ..problems.specifications import label_of_text


@dataclass(frozen=True)
class Plan:
    """Cases of a benchmark to run, and cases left out with the reason."""

    benchmark: AnyBenchmark
    cases: list[AnyCase]
    skipped: list[tuple[AnyCase, str]]

    @property
    def order(self) -> list[str]:
        """Identifiers in the order in which the rows are kept."""
        return [case.id for case in (*(case for case, _ in self.skipped), *self.cases)]


def make_plan(benchmark: AnyBenchmark) -> Plan:
    """Ask of every case whether it can be measured.

    Raises:
        UsageError: what was asked for cannot be run: a device, a size, a plugin that does not load, an
            estimator that supports nothing of what was asked of it.
    """
    chosen, cases = benchmark.chosen(), benchmark.grid()
    for device, dtype in {(case.device, case.dtype) for case in cases}:
        check_device(device)
        check_dtype(dtype)
    possible, skipped, support = [], [], Support()
    for case in cases:
        reason = benchmark.why_not(case, support)
        if reason is None:
            possible.append(case)
        else:
            skipped.append((case, reason))
    _check_chosen(chosen, possible, skipped)
    if not possible:
        raise UsageError(f"nothing to run: {_describe(*skipped[0])}" if skipped else "nothing to run")
    return Plan(benchmark, possible, skipped)


def _check_chosen(
    chosen: Sequence[str], possible: Sequence[AnyCase], skipped: Sequence[tuple[AnyCase, str]]
) -> None:
    for estimator in chosen:
        if not any(case.estimator == estimator and case.problem for case in possible):
            refused = next(item for item in skipped if item[0].estimator == estimator)
            raise UsageError(_describe(*refused))


def _describe(case: AnyCase, reason: str) -> str:
    return f"{label_of_text(case.estimator)} cannot be used on {label_of_text(case.problem)}: {reason}"
