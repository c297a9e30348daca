"""Faults of a model, a line each: the first of them raised, or all of them collected.

A look at a model is a generator of faults. It may also raise `UsageError`, with the fault after which it
cannot go on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from ...estimators.errors import UsageError

Faults = Generator[str, None, None]


def raise_first(faults: Faults) -> None:
    """Raise UsageError with the first fault, if there is one; the look ends, and puts back what it moved."""
    with closing(faults):
        fault = next(faults, None)
    if fault is not None:
        raise UsageError(fault)


def all_of(*looks: Faults) -> Faults:
    """The faults that each of several looks finds, the one that it ends with among them."""
    for look in looks:
        try:
            yield from look
        except UsageError as error:
            yield str(error)
