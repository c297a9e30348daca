"""What every measurement is asked: counts, seeds, seconds, choices. One line tells which is wrong.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real

from ...estimators.errors import UsageError
from ...estimators.text import clean

_LEAST = {"replicates": 2, "warmup": 0, "train_steps": 0, "importance_samples": 0}  # any other count: 1
_SHOWN = 80  # characters of a bad value


def is_integer(value: object) -> bool:
    """Whether a value counts something: an integer of Python or NumPy, but no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A bad value in one short line, whatever its repr does."""
    try:
        text = clean(repr(value))
    except Exception:  # a user's class may have any repr
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_counts(**counts: object) -> None:
    """Raise UsageError for a count that is no integer, or too small; None is left to the callee's default."""
    for name, value in counts.items():
        least = _LEAST.get(name, 1)
        if value is not None and not (is_integer(value) and value >= least):  # type: ignore[operator]
            raise UsageError(f"{name} must be an integer of at least {least}, not {shown(value)}")


def check_seed(seed: object) -> None:
    """Raise UsageError unless torch's generators take the seed, and those derived from it."""
    if not is_integer(seed) or not 0 <= seed < 2**63:  # type: ignore[operator]
        raise UsageError(f"seed must be an integer from 0 to 2**63 - 1, not {shown(seed)}")


def check_positive(unit: str = "number", **values: object) -> None:
    """Raise UsageError for what is no positive, finite number; ``unit`` says of what."""
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and 0 < value < math.inf):  # type: ignore[operator]
            raise UsageError(f"{name} must be a positive {unit}, not {shown(value)}")


def check_between(low: float, high: float, **values: object) -> None:
    """Raise UsageError for what is no number between two others."""
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and low < value < high):  # type: ignore[operator]
            raise UsageError(f"{name} must be between {low:g} and {high:g}, not {shown(value)}")


def check_choice(choices: Collection[str], **values: object) -> None:
    """Raise UsageError for what is none of ``choices``."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise UsageError(f"{name}={shown(value)} is not one of {', '.join(choices)}")
