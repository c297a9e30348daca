"""Which parameters belong together: layers of an encoder, parts of eta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..estimators.errors import UsageError
from .problems.protocol import Problem


def layers_of(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Layer (the module that holds them) -> names of its parameters; "" is the encoder itself."""
    layers: dict[str, list[str]] = {}
    for name in parameters:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def eta_parts(problem: Problem, size: int) -> Mapping[str, slice]:
    """What the coordinates of eta are, as the problem says in ``eta_parts``; nothing where it does not.

    Raises:
        UsageError: not slices of eta (B, P) by name.
    """
    parts: Mapping[str, slice] = getattr(problem, "eta_parts", {})
    for name, part in parts.items():
        if not isinstance(part, slice) or len(range(size)[part]) == 0:
            raise UsageError(f"eta_parts[{name!r}] = {part!r} is not a slice of eta's {size} coordinates")
    return parts
