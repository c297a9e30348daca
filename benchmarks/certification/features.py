"""Functions of an estimate's noise whose means are known exactly, for the estimate to be compared with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Features(NamedTuple):
    """Of R estimates of B data.

    Attributes:
        values: (R, B, F), float64.
        means: (B, F).
        sets: of some features, those that make up a gradient coordinate by coordinate: each set has one
            for each of the P coordinates, its place that of the first; the sets that are tried together.
        scalars: the same of single features, for the value.
    """

    values: Float[Tensor, "R B F"]
    means: Float[Tensor, "B F"]
    sets: tuple[tuple[int, ...], ...] = ()
    scalars: tuple[tuple[int, ...], ...] = ()

    @property
    def centred(self) -> Float[Tensor, "R B F"]:
        """Less their means."""
        return self.values - self.means

    def only(self, kept: Float[Tensor, "B F"]) -> Features:
        """Nothing but zeros of the others of a datum."""
        return self._replace(values=self.values * kept, means=self.means * kept)


def no_features(replicates: int, like: Float[Tensor, "B P"]) -> Features:
    """None at all, for B data."""
    return Features(like.new_zeros(replicates, len(like), 0), like.new_zeros(len(like), 0))


def joined(parts: list[Features]) -> Features:
    """The same features of several draws."""
    return parts[0]._replace(values=torch.cat([part.values for part in parts]))
