"""How the false alarms of a whole run are shared out. Imports no torch.

A screening look rejects a correct estimator with probability 1e-3 × the level of its confirmation (see
`sequential`). A run makes a known number of looks at most; the confirmation's level is chosen so that all of
them together raise a false alarm with probability `ALARM_RATE`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..problems.arguments import check_between, check_positive
from ..rows.certificate import ALARM_RATE
from .corners import CORNERS

#: Relative bias that a bound must reach, unless another is asked for.
TOLERANCE = 0.003
#: Of a budget, for the conformance suite; the rest is for the problems, each the same.
CONTRACT_SHARE = 0.3
#: Looks of a cell that may raise an alarm, at most; one more may confirm the last.
LOOKS = 7
_SCREEN_LEVEL = 1e-3
_BLOCKS = 5  # that each look is asked about: gradient (or mean), phi, value, theta, variance
_CELLS = 5 + len(CORNERS) + 1  # of a problem: five points at the smallest S, and corners
_CONFORMANCE_LOOKS = 97  # of the conformance suite, on four families


@dataclass(frozen=True)
class Settings:
    """How certain, how precise, and for how long.

    Attributes:
        confidence: of the bias bound.
        tolerance: relative bias at which it is tight.
        confirm_level: of a confirmation, see `sequential`.
        seed: of all draws.
        max_evaluations: of log p(x|z), roughly, after which no further look is begun.
        seconds: that the conformance suite or a problem may take.
    """

    confidence: float = 0.99
    tolerance: float = TOLERANCE
    confirm_level: float = 1e-3
    seed: int = 0
    max_evaluations: float = 2.0**21
    seconds: float = float("inf")


def check_range(confidence: float, tolerance: float, budget: float | None) -> None:
    """Raise UsageError for a value out of range."""
    check_between(0.5, 1, confidence=confidence)
    check_between(0, 1, tolerance=tolerance)
    if budget is not None:
        check_positive("number of seconds", budget=budget)


def confirm_level(problems: int, estimators: int) -> float:
    """The level of a confirmation at which a whole run keeps `ALARM_RATE`."""
    looks = estimators * (_CONFORMANCE_LOOKS + problems * _CELLS * _BLOCKS * LOOKS)
    return ALARM_RATE / _SCREEN_LEVEL / looks
