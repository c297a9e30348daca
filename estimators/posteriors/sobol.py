"""Scrambled Sobol' points, an independent randomization for every entry of a batch and every dimension."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float64, Int32
from torch import Tensor

MAX_DIMENSION = torch.quasirandom.SobolEngine.MAXDIM


def sobol_uniforms(
    num_samples: int, batch: tuple[int, ...], dimension: int, device: torch.device
) -> Float64[Tensor, "{num_samples} *batch {dimension}"]:
    """The first S points of the sequence under Owen's scrambling, in (0, 1): (S, *batch, D), float64.

    Digit l of a point is flipped by a random bit that belongs to the l − 1 digits before it, independent for
    every (*batch, dimension). The first S points differ within their leading ⌈log₂ S⌉ digits in every
    dimension, so that all digits behind these are independent: a uniform remainder. Each point by itself is
    uniform, hence any average over the points unbiased, whatever S; where S is a power of two every dimension
    has one point in each of S equal strata, independent of one another.

    Args:
        num_samples: S.
        batch: any shape.
        dimension: D, of one point; at most `MAX_DIMENSION`.
        device: where to draw them.

    References:
        Owen, Randomly Permuted (t,m,s)-Nets and (t,s)-Sequences, 1995.
    """
    digits = (num_samples - 1).bit_length()
    points = _leading_digits(num_samples, dimension, digits, device)
    entries = torch.Size(batch).numel()
    flips = torch.randint(0, 2, (2**digits, dimension, entries), dtype=torch.int32, device=device)
    column = torch.arange(dimension, device=device)
    scrambled = torch.zeros((num_samples, dimension, entries), dtype=torch.int32, device=device)
    for digit in range(digits):
        before = points >> (digits - digit)
        own = (points >> (digits - digit - 1)) & 1
        scrambled = 2 * scrambled + (own.unsqueeze(-1) ^ flips[2**digit - 1 + before, column])
    remainder = torch.rand(scrambled.shape, dtype=torch.float64, device=device)
    # The sum may round to 0 or to 1, which a quantile function sends to infinity.
    uniform = ((scrambled + remainder) / 2**digits).clamp(2.0**-60, 1 - 2.0**-53)
    return uniform.movedim(1, -1).reshape(num_samples, *batch, dimension)


@lru_cache(maxsize=32)
def _leading_digits(
    num_samples: int, dimension: int, digits: int, device: torch.device
) -> Int32[Tensor, "{num_samples} {dimension}"]:
    """The leading binary digits of the unscrambled points, as integers below 2^digits: (S, D)."""
    points = torch.quasirandom.SobolEngine(dimension).draw(num_samples, dtype=torch.float64)
    return (points * 2**digits).to(torch.int32).to(device)
