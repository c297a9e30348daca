"""Which parameters belong together: layers of an encoder, parts of eta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...estimators.errors import UsageError
from .checks import attribute
from .protocol import Problem


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
    parts: object = attribute(problem, "eta_parts", {})
    if not isinstance(parts, Mapping):
        raise UsageError(
            f"eta_parts is {_in_short(parts)}, not name -> slice, such as "
            f"{{'mean': slice(0, {max(size // 2, 1)})}}: correct it or leave it out"
        )
    for name, part in parts.items():
        if not isinstance(part, slice) or not _inside(part, size):
            raise UsageError(
                f"eta_parts[{name!r}] = {_in_short(part)} is not a slice of eta's {size} coordinates"
            )
    return parts


def _inside(part: slice, size: int) -> bool:
    """Whether a slice names at least one of ``size`` coordinates and none beyond, which Python would clip."""
    if not all(end is None or isinstance(end, int) for end in (part.start, part.stop, part.step)):
        return False
    if part.step is not None and part.step < 1:  # torch indexes forwards only
        return False
    ends = [end for end in (part.start, part.stop) if end is not None]
    return all(-size <= end <= size for end in ends) and len(range(size)[part]) > 0


def _in_short(thing: object) -> str:
    """A thing in a few characters."""
    return repr(thing) if thing is None or isinstance(thing, int | slice) else f"a {type(thing).__name__}"
