"""log q of several latents as a function of z alone: φ cut out of conditionals that are any functions of it.

Where φ lies in a function's networks there is nothing to replace. The derivative in z can be had by itself,
and value + ⟨z − z₀, ∂/∂z⟩ at z = z₀ has that one and no other: what z¹ does to the distribution of z² stays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .layered import Layered


class Cut(Layered):
    """A layered distribution whose log q has no gradient but that in z.

    Args:
        whole: as it was.
    """

    def __init__(self, whole: Layered) -> None:
        super().__init__(whole.layers)
        self.whole = whole
        self._profiles = whole._profiles

    def log_probs(self, z: Tensor) -> dict[str, Tensor]:
        """log of each factor, (...), by name, attached to z (..., D) alone."""
        return along_z_alone(self.whole.log_probs, z)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of z (..., D), (...), by one pass back for all latents."""
        return along_z_alone(lambda z: {"": self.whole.log_prob(z)}, value)[""]


def along_z_alone(function: Callable[[Tensor], dict[str, Tensor]], z: Tensor) -> dict[str, Tensor]:
    """Numbers of each z (..., D), (...) by name, without a gradient but that in z.

    Args:
        function: of z, each row alone.
        z: attached to whatever it is attached to.
    """
    fixed = z.detach()
    with torch.no_grad():
        values, pull, *_ = torch.func.vjp(function, fixed)
    nothing = {name: torch.zeros_like(value) for name, value in values.items()}
    # One pull a number: each has a derivative of its own.
    return {
        name: _attached(value, pull({**nothing, name: torch.ones_like(value)})[0], z, fixed)
        for name, value in values.items()
    }


def _attached(value: Tensor, slope: Tensor, z: Tensor, fixed: Tensor) -> Tensor:
    """A value with this derivative in z."""
    return value.detach() + ((z - fixed) * slope.detach()).sum(-1)
