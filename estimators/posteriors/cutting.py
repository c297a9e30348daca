"""log q of several latents as a function of z alone: φ cut out of conditionals that are any functions of it.

Where φ lies in a function's networks there is nothing to replace. The derivative in z can be had by itself, and
value + ⟨z − z₀, ∂/∂z⟩ at z = z₀ has that one and no other: what z¹ does to the distribution of z² stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .layered import Layered

_Parts = TypeVar("_Parts", Tensor, dict[str, Tensor])


class Cut(Layered):
    """A layered distribution whose log q has no gradient but that in z.

    Args:
        whole: as it was.
    """

    def __init__(self, whole: Layered) -> None:
        super().__init__(whole.layers)
        self.whole = whole
        self._profiles = whole._profiles  # noqa: SLF001

    def log_probs(self, z: Tensor) -> dict[str, Tensor]:
        """log of each factor, (...), by name, attached to z (..., D) alone."""
        return along_z_alone(self.whole.log_probs, z)


def along_z_alone(function: Callable[[Tensor], _Parts], z: Tensor) -> _Parts:
    """Numbers of each z (..., D), (...) or several by name, without a gradient but that in z.

    Args:
        function: of z, each row alone.
        z: attached to whatever it is attached to.
    """
    fixed = z.detach()
    with torch.no_grad():
        values, pull = torch.func.vjp(function, fixed)
    if isinstance(values, Tensor):
        return _attached(values, pull(torch.ones_like(values))[0], z, fixed)
    # One pull a number: each has a derivative of its own.
    found = {}
    for name, value in values.items():
        only = {other: torch.zeros_like(v) for other, v in values.items()} | {name: torch.ones_like(value)}
        found[name] = _attached(value, pull(only)[0], z, fixed)
    return found


def _attached(value: Tensor, slope: Tensor, z: Tensor, fixed: Tensor) -> Tensor:
    """A value with this derivative in z."""
    return value.detach() + ((z - fixed) * slope.detach()).sum(-1)
