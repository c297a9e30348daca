"""What every problem offers, by name. Imports no torch."""

from __future__ import annotations

NEEDED = ("encoder", "decoder", "posterior", "target", "batches")


def is_problem(thing: object) -> bool:
    """Whether an instance offers all that a Problem must."""
    return not isinstance(thing, type) and all(hasattr(thing, name) for name in NEEDED)


def is_module(thing: object) -> bool:
    """Whether it is a `torch.nn.Module`, or a class of them."""
    kind = thing if isinstance(thing, type) else type(thing)
    return any(
        (base.__module__, base.__name__) == ("torch.nn.modules.module", "Module") for base in kind.__mro__
    )
