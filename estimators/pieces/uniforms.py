"""Uniform noise that never reaches an end of the interval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

_STEP = 2.0**-53


def open_uniform(shape: Sequence[int], like: Tensor) -> Float64[Tensor, "..."]:
    """Uniform on (0, 1), on the device of ``like``, in float64: float32 knows little between 0 and 1e-7.

    torch's are multiples of 2⁻⁵³, 0 among them.
    """
    drawn = torch.rand(tuple(shape), dtype=torch.float64, device=like.device)
    return (drawn + 0.5 * _STEP).clamp_max(1 - _STEP)
