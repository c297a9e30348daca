"""Certifying what an estimator promises whatever the problem: the conformance suite."""

from __future__ import annotations

import time
from collections.abc import Callable
from unittest import SkipTest

from ...estimators.base import Estimator
from ...estimators.testing.check import estimator_checks
from ...estimators.testing.trial import NotApplicable
from ...estimators.text import one_line
from ..rows.certificate import Certificate
from ..rows.certificate_checks import Check
from ..seeds import derived
from .candidate import certificate_of
from .levels import Settings


def certify_contract(build: Callable[[], Estimator], settings: Settings) -> Certificate:
    """The conformance suite under this run's seed and level."""
    checks = []
    deadline = time.monotonic() + settings.seconds
    for one in estimator_checks(build, derived(settings.seed, "conformance"), settings.confirm_level):
        start = time.monotonic()
        if start > deadline:
            checks.append(
                Check(one.name, None, "not begun: the time allowed was spent before (see --budget)")
            )
            continue
        holds: bool | None = True
        reason = ""
        try:
            one()
        except NotApplicable:
            continue
        except SkipTest as no_verdict:
            holds, reason = None, one_line(no_verdict)
        except AssertionError as error:
            holds, reason = False, one_line(error)
        checks.append(Check(one.name, holds, reason, seconds=time.monotonic() - start))
    return certificate_of(build, checks, settings)
