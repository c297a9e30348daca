"""Flows, taken apart and put together again: the tensors that a chain of transforms holds."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.transforms import _InverseTransform

_PLAIN = (type(None), bool, int, float, complex, str, constraints.Constraint)
_OWN = ("_inv", "_cached_x_y")  # what torch keeps in a transform: a weak reference and a cache


def tensors_of(transforms: list[Transform]) -> dict[str, Tensor]:
    """The tensors the transforms hold, however deep, attached to the graph, by where they lie.

    Raises:
        TypeError: a transform holds something other than numbers, tensors and transforms.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        found[name] = tensor
        return tensor

    _map(transforms, "transforms", keep)
    return found


def with_tensors(transforms: list[Transform], tensors: dict[str, Tensor]) -> list[Transform]:
    """Copies of the transforms that hold other tensors (as named by `tensors_of`); the originals stay."""
    copied = _map(transforms, "transforms", lambda name, _: tensors[name])
    assert isinstance(copied, list)
    return copied


def _map(thing: object, name: str, swap: Callable[[str, Tensor], Tensor]) -> object:
    """A copy of the thing with every tensor in it swapped."""
    if isinstance(thing, Tensor):
        return swap(name, thing)
    if isinstance(thing, _PLAIN):
        return thing
    if type(thing) in (list, tuple):
        assert isinstance(thing, list | tuple)
        return type(thing)(_map(item, f"{name}.{i}", swap) for i, item in enumerate(thing))
    if isinstance(thing, _InverseTransform):
        forward = _map(thing._inv, name, swap)
        assert isinstance(forward, Transform)
        return forward.inv
    if isinstance(thing, Transform):
        twin = copy.copy(thing)
        twin._cached_x_y = None, None
        for key, value in vars(thing).items():
            if key not in _OWN:
                twin.__dict__[key] = _map(value, f"{name}.{key}", swap)
        return twin
    held = type(thing).__name__
    raise TypeError(f"the parameters of this flow are not known to elbograd: {name} is a {held}")
