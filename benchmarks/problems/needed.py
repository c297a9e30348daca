"""What every problem offers, by name. Imports no torch."""

from __future__ import annotations

NEEDED = ("encoder", "decoder", "posterior", "target", "batches")


def is_problem(thing: object) -> bool:
    """Whether an instance offers all that a Problem must."""
    return not isinstance(thing, type) and all(hasattr(thing, name) for name in NEEDED)
