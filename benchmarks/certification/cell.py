"""Certifying one estimator at one place: by a proof where all that can be drawn is little, else by draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ...estimators.base import Estimator
from ...estimators.text import one_line
from ..rows.certificate_checks import Check
from .blocks import exact_bias
from .corners import Corner
from .levels import Settings
from .looks import sample
from .oracle import Oracle
from .outcome import Outcome
from .proof import prove
from .shapes import plain_batch
from .subject import NotFinite, Subject


def certify_cell(
    estimator: Callable[[], Estimator],
    oracle: Oracle,
    corner: Corner,
    label: str,
    typical_norm: float,
    settings: Settings,
    deadline: float = float("inf"),
    claims: bool = True,
) -> list[Check] | str:
    """The checks of one estimator at one point of a problem, in one corner, or why it refuses that.

    Of a gradient that is biased as declared the bias is measured, or exact where the mean is known, which the
    draws are then held against.

    Args:
        estimator: returns one of its own that has seen the place, see `subject.warmed`.
        oracle: the problem there, in float64.
        corner: S, B, floating-point type and mode.
        label: the problem's name, for the checks.
        typical_norm: see `blocks.bias_of`; for the data of the oracle.
        settings: of the tests.
        deadline: `time.monotonic()` after which no further look is begun.
        claims: whether the oracle's objective is the estimator's. Else nothing is claimed of it, and how far
            the gradient is from that of this objective is a check called "elbo-bias".
    """
    start = time.monotonic()
    here = partial(Check, problem=label, point=oracle.point, **vars(corner))
    try:
        moved = oracle.at(corner.batch_size, corner.dtype)
        typical = typical_norm * (corner.batch_size / len(oracle.eta)) ** 0.5
        subject = Subject(estimator(), moved, corner, typical, settings, claims)
        refused = subject.refusal()
        if refused is not None:
            return refused
        with subject.asking():
            outcome = prove(subject) or sample(subject, deadline)
            checks = _checks(subject, outcome, here)
            if claims:
                checks += _shape(subject, here)
    except NotFinite as error:
        checks = [here(name=error.name, holds=False, reason=str(error))]
    except Exception as error:  # a plugin may raise anything
        checks = [
            here(name="gradient", holds=False, reason=f"raises {type(error).__name__}: {one_line(error)}")
        ]
    return [replace(checks[0], seconds=time.monotonic() - start), *checks[1:]] if checks else []


def _checks(subject: Subject, outcome: Outcome, here: Callable[..., Check]) -> list[Check]:
    known = subject.mean is not None
    bias = exact_bias(subject.oracle, subject.mean, subject.typical_norm) if known else outcome.bias  # type: ignore[arg-type]
    found = []
    for block in outcome.blocks:
        holds, reason = outcome.verdicts[block.name]
        own = bias if block.name == "gradient" else None
        found.append(
            here(
                name=block.name,
                holds=holds,
                reason=reason,
                draws=outcome.draws,
                bias=own,
                exact=outcome.exact,
            )
        )
    if not subject.unbiased:
        name = "bias" if subject.claims else "elbo-bias"
        found.append(here(name=name, holds=True, draws=outcome.draws, bias=bias, exact=outcome.exact))
    return found


def _shape(subject: Subject, here: Callable[..., Check]) -> list[Check]:
    """Whether a batch (B,) gives what one replicate of it does; nothing where it draws otherwise."""
    reason = plain_batch(subject)
    return [] if reason is None else [here(name="shape", holds=not reason, reason=reason)]
