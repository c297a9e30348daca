"""Estimates less what features with known means explain of them: the same mean, with far less noise.

With β from a pilot, never from the draws that are tested, the mean of h − βᵀ(c − E c) is exactly that of h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .features import Features

_DRAWS_A_FEATURE = 6  # of a pilot, at least
_CONSTANT = 1e-8  # relative to the feature that varies most, below which one is rounding
_ROUNDING = 1e-12  # of terms of order 1 that cancel: below it nothing is left of a feature
_RANK = 1e-11  # relative, below which features say the same
#: The same, in turn, until what errors of the features' means move is small: β grows like its inverse.
RANKS = (_RANK, 1e-6, 1e-3)
_WORTH_ITS_TIME = 0.25  # features of noise take as long as four times the draws
_UNITS = 10  # of rounding, that all draws of a feature may be off by alike
_ALL = 1e-7  # of a column, that is left where features explain all of it but its own rounding


@dataclass(frozen=True)
class Adjustment:
    """What is subtracted from K columns of every datum.

    Attributes:
        coefficients: β, (B, F, K); features from the F-th on are not looked at.
    """

    coefficients: Float[Tensor, "B F K"]

    @property
    def used(self) -> Bool[Tensor, "F"]:
        """Which features anything is made of."""
        return self.coefficients.ne(0).any(2).any(0)

    def __call__(self, columns: Float[Tensor, "R B K"], features: Features) -> Float[Tensor, "R B K"]:
        """The columns, less β times the features about their means."""
        centred = features.centred[..., : self.coefficients.shape[1]]
        return columns - torch.einsum("rbf,bfk->rbk", centred, self.coefficients)

    def error(self, features: Features, relative: float) -> Float[Tensor, "B K"]:
        """What errors of the features may move the columns' means by.

        Of their exact means, relative to each, and of their values, by rounding: of features that nearly say
        the same, the coefficients are large.
        """
        kept = self.coefficients.shape[1]
        rounding = _UNITS * torch.finfo(features.values.dtype).eps
        typical = features.values[..., :kept].square().mean(0).sqrt()
        size = relative * features.means[:, :kept].abs() + rounding * typical
        return torch.einsum("bf,bfk->bk", size, self.coefficients.abs())


def fitted(
    columns: Float[Tensor, "R B K"], features: Features, data: int, rank: float = _RANK
) -> Float[Tensor, "B F K"]:
    """β by least squares over the pilot's draws, for each datum; of features that say the same the least β.

    Args:
        columns: to be explained.
        features: of the same draws; no more than a sixth as many as there are draws of a datum are used.
        data: the batch is these data over and over, and all draws of a datum are taken together.
        rank: see `RANKS`.
    """
    target, design = (_centred(part, data) for part in (columns, features.centred))
    used = min(design.shape[-1], design.shape[1] // _DRAWS_A_FEATURE)
    beta = torch.zeros(data, features.values.shape[-1], columns.shape[-1]).to(columns)
    beta[:, :used] = _least_squares(design[..., :used], target, rank)
    return beta[torch.arange(columns.shape[1]) % data]


def _the_same_for_all(
    design: Float[Tensor, "data K N F"], target: Float[Tensor, "data K N 1"]
) -> Float[Tensor, "data K F 1"]:
    """One β for all data and coordinates, which the draws of all of them tell."""
    size = target.square().mean(-2, keepdim=True).sqrt()
    weight = torch.where(size > _ROUNDING, 1 / size, torch.zeros_like(size))
    rows, wanted = (design * weight).flatten(0, 2), (target * weight).flatten(0, 2)
    return _least_squares(rows, wanted).expand(*design.shape[:2], -1, -1)


def _least_squares(
    design: Float[Tensor, "*batch N F"], target: Float[Tensor, "*batch N K"], rank: float = _RANK
) -> Tensor:
    """β (*batch, F, K), zero of what does not vary."""
    spread, size = (part.square().mean(-2, keepdim=True).sqrt() for part in (design, target))
    scale = torch.where(_usable(spread), spread, torch.inf)
    size = size.clamp_min(torch.finfo(size.dtype).tiny)
    solved = torch.linalg.lstsq(design / scale, target / size, rcond=rank, driver="gelsd").solution
    return solved / scale.mT * size


def fitted_by_coordinate(
    columns: Float[Tensor, "R B K"], features: Features, data: int, rounding: float
) -> tuple[Float[Tensor, "B F K"], bool]:
    """β of what is made of one of the features' sets alone, coordinate by coordinate; zero of all else.

    The first set that leaves nothing but rounding is taken. Features that say the same on the pilot's draws
    need not on rarer ones, so that of many the least β is a bad guess there, and of few a good one.

    Returns β, and whether one relation that is the same for all data and coordinates explains everything.

    Args:
        columns: see `fitted`.
        features: likewise.
        data: likewise.
        rounding: of a column, in its own units.
    """
    the_same = True
    width = columns.shape[-1] - 1
    beta = torch.zeros(data, features.values.shape[-1], width + 1).to(columns)
    target = _centred(columns, data)
    centred = _centred(features.centred, data)
    for tried, coordinates in ((features.sets, range(width)), (features.scalars, range(width, width + 1))):
        wanted = target[..., coordinates.start : coordinates.stop].movedim(-1, 1)  # (data, width, N)
        left = torch.ones(wanted.shape[:2], dtype=torch.bool, device=wanted.device)
        for places in tried:
            index = torch.tensor([[place + c - coordinates.start for place in places] for c in coordinates])
            design = centred[..., index].movedim(1, 2)  # (data, width, N, k)
            for solve in (_the_same_for_all, _least_squares):
                solved = solve(design, wanted.unsqueeze(-1))
                rest = wanted - (design @ solved).squeeze(-1)
                right = left & (rest.std(-1) <= _ALL * wanted.std(-1) + rounding)
                the_same &= solve is _the_same_for_all or not bool(right.any())
                for datum, c in right.nonzero().tolist():
                    beta[datum, index[c], coordinates.start + c] = solved[datum, c, :, 0]
                left &= ~right
        the_same &= not bool(left.any())
    return beta[torch.arange(columns.shape[1]) % data], the_same


def _usable(spread: Float[Tensor, "data 1 F"]) -> Tensor:
    """Which features vary by more than rounding.

    Where the terms of one cancel, as odd ones of antithetic pairs do, its spread and its mean are rounding.
    """
    if not spread.shape[-1]:
        return spread > 0
    varies = spread > _CONSTANT * spread.amax(-1, keepdim=True)
    return varies & (spread > _ROUNDING) & spread.isfinite()


def all_explained(columns: Float[Tensor, "R B K"], left: Float[Tensor, "R B K"], rounding: float) -> bool:
    """Whether what is left of the columns' noise is rounding."""
    before, after = (part.std(0) for part in (columns, left))
    return bool((after <= _ALL * before + rounding).all())


def pays(
    columns: Float[Tensor, "R B K"],
    left: Float[Tensor, "R B K"],
    features: Features,
    data: int,
    rounding: float,
) -> bool:
    """Whether a fit is worth its time: it leaves a quarter of the variance at most, or nothing of a column.

    Of draws that it was fitted to it leaves less: 1 − F/N of the noise, where others keep 1 + F/N.
    """
    before, after = (part.var(0).sum(0) for part in (columns, left))
    draws = len(columns) * max(columns.shape[1] // data, 1)
    fitted_to = min(features.values.shape[-1], draws // _DRAWS_A_FEATURE) / draws
    others = (1 + fitted_to) / (1 - fitted_to)
    nothing = (before > rounding**2) & (after <= _ALL**2 * before + rounding**2)
    return bool(nothing.any()) or float(after.sum()) * others <= _WORTH_ITS_TIME * float(before.sum())


def _centred(values: Float[Tensor, "R B K"], data: int) -> Float[Tensor, "data N K"]:
    """All draws of each datum less their mean; of a part of the data that a batch ends with none."""
    times = values.shape[1] // data
    found = values[:, : times * data].unflatten(1, (times, data)).flatten(0, 1).movedim(1, 0)
    return found - found.mean(1, keepdim=True)
