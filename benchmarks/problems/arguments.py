"""What every measurement is asked: counts, seeds, seconds, choices. One line tells which is wrong.

Imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from numbers import Integral, Real
from typing import TypeGuard

from ...estimators.errors import UsageError
from ...estimators.text import clean, shortened

_SHOWN = 80  # characters of a bad value
#: The smallest of a count; of any other, 1.
_LEAST = {"replicates": 2, "warmup": 0, "train_steps": 0, "importance_samples": 0, "stream": 0}


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value counts something: an integer of Python or NumPy, but no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A bad value in one short line, whatever its repr does."""
    try:
        text = clean(repr(value))
    except Exception:  # a user's class may have any repr
        text = f"a {type(value).__name__}"
    return shortened(text, _SHOWN)


def counts(**given: object) -> tuple[int, ...]:
    """Counts, in the order they are given, as Python's own integers: torch takes no others everywhere.

    Raises:
        UsageError: one is no integer, or too small.
    """
    return tuple(_count(name, value) for name, value in given.items())


def optional_counts(**given: object) -> tuple[int | None, ...]:
    """As `counts`, of those that may be None, which is left to the callee's default."""
    return tuple(None if value is None else _count(name, value) for name, value in given.items())


def _count(name: str, value: object) -> int:
    least = _LEAST.get(name, 1)
    if not is_integer(value) or value < least:
        raise UsageError(f"{name} must be an integer of at least {least}, not {shown(value)}")
    return int(value)


def checked_seed(seed: object) -> int:
    """The seed as Python's own integer.

    Raises:
        UsageError: torch's generators do not take it, or those derived from it.
    """
    if not is_integer(seed) or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be an integer from 0 to 2**63 - 1, not {shown(seed)}")
    return int(seed)


def check_positive(unit: str = "number", **values: object) -> None:
    """Raise UsageError for what is no positive number that a float can hold; ``unit`` says of what."""
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and 0 < value <= sys.float_info.max):  # type: ignore[operator]
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


def check_called(**values: object) -> None:
    """Raise UsageError for what is to be called and cannot be."""
    for name, value in values.items():
        if not callable(value):
            raise UsageError(f"{name} must be a function, not {shown(value)}")
