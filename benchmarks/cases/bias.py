"""The bias of a case of the variance benchmark: its reference, its second look, how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...estimators.kl_weight import is_elbo
from ...estimators.plugins.registry import create
from ..problems.specifications import label_of_text
from ..seeds import hashed
from .session import Point, Session, title_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..problems.protocol import Problem
    from ..variance.result import VarianceResult
    from .base import Case, Row

#: Seconds that a reference may take.
BIAS_SECONDS = 120.0
_PILOT_SECONDS = 4.0  # that all pilots of references take, about

#: Measures the same again, under a seed, with so many replicates.
Measure = Callable[[int, int], "VarianceResult"]


def rows_on_bias(
    case: Case[Any],
    point: Point,
    problem: Problem,
    x: Tensor,
    result: VarianceResult,
    session: Session,
    measure: Measure,
) -> list[Row]:
    """What the estimator claims, and how far its mean is from the reference that all at this point share.

    What has an objective of relaxed latents is held against the ELBO's gradient, of which it claims nothing.
    """
    from ..oracles.bias import bias_rows
    from ..oracles.references import compared_objective
    from ..rows.schema import row

    objective = compared_objective(str(result.case["objective"]))
    unbiased = bool(create(case.estimator).unbiased) and objective == result.case["objective"]
    settings = case.settings
    if settings.bias is False:
        return [row(**result.case, metric="unbiased", value=float(unbiased), n=result.replicates)]

    def reference(look: int) -> Any:
        return session.reference(
            point,
            objective,
            1 if is_elbo(objective) else case.num_samples,  # which other objectives depend on
            problem,
            x,
            replicates=settings.replicates,
            whole=result.eta_mean is None,
            look=look,
            seconds=settings.bias_seconds or BIAS_SECONDS,
        )

    def again(replicates: int) -> VarianceResult:
        session.tell(f"second look at the bias of {label_of_text(case.estimator)}", 0.0)
        return measure(hashed(case.seed, "second look"), replicates)

    return bias_rows(problem, x, result, reference(0), unbiased, again, lambda: reference(1))


class PlannedReference(NamedTuple):
    """A reference that a run would compute.

    Attributes:
        title: of it.
        seconds: that it would take, the limit at most; None where that is not known.
        limit: of its time.
    """

    title: str
    seconds: float | None
    limit: float


def planned_references(
    cases: Sequence[Case[Any]], point_of: Callable[[Any], Point]
) -> list[PlannedReference]:
    """The references that cases share, each once; their times are from quick pilots, run here."""
    from ..oracles.references import compared_objective

    wanted: dict[tuple[Point, str, int], Case[Any]] = {}
    for case in cases:
        if case.settings.bias is not False:
            objective = compared_objective(case.kind.objective(case))
            samples = 1 if is_elbo(objective) else case.num_samples
            wanted.setdefault((point_of(case), objective, samples), case)
    return list(_timed(wanted))


def _timed(wanted: dict[tuple[Point, str, int], Case[Any]]) -> Iterator[PlannedReference]:
    began, known = time.monotonic(), dict[Any, float | None]()
    for (point, objective, samples), case in wanted.items():
        alike = (point.problem, point.batch_size, objective, samples)
        if alike not in known:
            late = time.monotonic() - began > _PILOT_SECONDS
            known[alike] = None if late else _pilot(case, objective, samples)
        limit = case.settings.bias_seconds or BIAS_SECONDS
        seconds = known[alike]
        yield PlannedReference(
            title_of(point, objective), None if seconds is None else min(seconds, limit), limit
        )


def _pilot(case: Case[Any], objective: str, num_samples: int) -> float | None:
    from ..oracles.references import expected_seconds, length_for
    from ..problems.point import placed

    try:
        problem, x = placed(
            case.problem, batch_size=case.batch_size, seed=case.seed, device=case.device, dtype=case.dtype
        )
        return expected_seconds(problem, x, objective, num_samples, length_for(case.settings.replicates))
    except Exception:  # the run itself will say why
        return None
