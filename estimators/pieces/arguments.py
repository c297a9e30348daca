"""Checking what a user passes to a constructor."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..errors import UsageError


def number(name: str, value: object) -> float:
    """``value`` as a float; UsageError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name}={value!r} is not a number")
    return float(value)


def positive_number(name: str, value: object) -> float:
    """``value`` as a float; UsageError unless it is a number above 0."""
    if not number(name, value) > 0:
        raise UsageError(f"{name}={value!r} is not positive")
    return number(name, value)


def positive_integer(name: str, value: object) -> int:
    """``value``; UsageError unless it is an integer above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value!r} is not a positive integer")
    return value


def integer_from(least: int, name: str, value: object) -> int:
    """``value``; UsageError unless it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}={value!r} is not an integer of {least} or more")
    return value


def one_of(name: str, value: str, choices: Collection[str]) -> str:
    """``value``; UsageError unless it is among the choices."""
    if value not in choices:
        raise UsageError(f"{name}={value!r} is not one of {', '.join(choices)}")
    return value
