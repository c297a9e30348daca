"""Estimates less what features with known means explain of them: the same mean, with far less noise.

With β from a pilot, never from the draws that are tested, the mean of h − βᵀ(c − E c) is exactly that of h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .features import Features

_DRAWS_A_FEATURE = 6  # of a pilot, at least
_CONSTANT = 1e-9  # relative to a feature, below which it does not vary
_ROUNDING = 1e-12  # of terms of order 1 that cancel: below it nothing is left of a feature
_RANK = 1e-11  # relative, below which features say the same
_ALL = 1e-7  # of a column, that is left where features explain all of it


@dataclass(frozen=True)
class Adjustment:
    """What is subtracted from K columns of every datum.

    Attributes:
        coefficients: β, (B, F, K); features from the F-th on are not looked at.
    """

    coefficients: Float[Tensor, "B F K"]

    def __call__(self, columns: Float[Tensor, "R B K"], features: Features) -> Float[Tensor, "R B K"]:
        """The columns, less β times the features about their means."""
        centred = features.centred[..., : self.coefficients.shape[1]]
        return columns - torch.einsum("rbf,bfk->rbk", centred, self.coefficients)

    def error(self, means: Float[Tensor, "B F"], relative: float) -> Float[Tensor, "B K"]:
        """What an error of the features' exact means, relative to each, would move the columns by."""
        size = relative * means[:, : self.coefficients.shape[1]].abs()
        return torch.einsum("bf,bfk->bk", size, self.coefficients.abs())


def fitted(columns: Float[Tensor, "R B K"], features: Features, data: int) -> Float[Tensor, "B F K"]:
    """β by least squares over the pilot's draws, for each datum; of features that say the same the least β.

    Args:
        columns: to be explained.
        features: of the same draws; no more than a sixth as many as there are draws of a datum are used.
        data: the batch is these data over and over, and all draws of a datum are taken together.
    """
    target, design = (_by_datum(part, data) for part in (columns, features.centred))
    target, design = (part - part.mean(1, keepdim=True) for part in (target, design))
    used = min(design.shape[-1], design.shape[1] // _DRAWS_A_FEATURE)
    design = design[..., :used]
    spread, size = (part.square().mean(1, keepdim=True).sqrt() for part in (design, target))
    whole = _by_datum(features.values, data)[..., :used].square().mean(1, keepdim=True).sqrt()
    live = (spread > _CONSTANT * whole) & (spread > _ROUNDING) & spread.isfinite()
    scale = torch.where(live, spread, torch.inf)
    size = size.clamp_min(torch.finfo(size.dtype).tiny)
    solved = torch.linalg.lstsq(design / scale, target / size, rcond=_RANK, driver="gelsd").solution
    beta = torch.zeros(data, features.values.shape[-1], columns.shape[-1]).to(solved)
    beta[:, :used] = solved / scale.mT * size
    return beta[torch.arange(columns.shape[1]) % data]


def all_explained(columns: Float[Tensor, "R B K"], left: Float[Tensor, "R B K"]) -> bool:
    """Whether what is left of the columns' noise is rounding."""
    before, after = (part.std(0) for part in (columns, left))
    return bool((after <= _ALL * before + 1e-300).all())


def _by_datum(values: Float[Tensor, "R B K"], data: int) -> Float[Tensor, "data N K"]:
    """All draws of each datum; of a part of the data that a batch ends with none."""
    if values.shape[1] < data:
        raise ValueError("fewer entries than data")
    times = values.shape[1] // data
    return values[:, : times * data].unflatten(1, (times, data)).flatten(0, 1).movedim(1, 0)
