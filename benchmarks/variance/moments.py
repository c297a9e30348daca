"""Shifted power sums in float64: moments that combine exactly by addition.

Shapes: R replicates, B data, P coordinates of η.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...estimators.errors import UsageError
from ..linalg import all_finite, times
from ..statistics.moments import Moments, summarize_data


@dataclass
class PowerSums:
    """Power sums of contributions u to a variance, about a fixed shift.

    Attributes:
        shift: about the mean of u.
        powers: Σ (u − shift)^k for k = 1..4.
        n: replicates added.
    """

    shift: Float64[Tensor, "*batch"]
    powers: Float64[Tensor, "4 *batch"]
    n: int = 0

    @classmethod
    def about(cls, shift: Float64[Tensor, "*batch"]) -> PowerSums:
        """Nothing yet, about a shift."""
        return cls(shift, shift.new_zeros(4, *shift.shape))

    def add(self, u: Float64[Tensor, "*batch R"]) -> Float64[Tensor, "*batch R"]:
        """Add a chunk; returns u less the shift."""
        rest = u - self.shift.unsqueeze(-1)
        power = rest
        for order in range(4):
            self.powers[order] += power.sum(-1)
            power = power * rest
        self.n += u.shape[-1]
        return rest

    def mean(self) -> Float64[Tensor, "*batch"]:
        """Mean of u."""
        return self.shift + self.powers[0] / self.n

    def central(
        self,
    ) -> tuple[Float64[Tensor, "*batch"], Float64[Tensor, "*batch"], Float64[Tensor, "*batch"]]:
        """Variance (n − 1), third and fourth central moment of u."""
        first, second, third, fourth = self.powers / self.n
        variance = (second - first**2) * bessel(self.n)
        m3 = third - 3 * first * second + 2 * first**3
        m4 = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return variance.clamp_min(0), m3, m4.clamp_min(0)


@dataclass
class Sums:
    """What is kept of replicates of h (B, P), and of their contributions u to the total variance.

    A contribution is u = (h − a)ᵀ K (h − a) for one datum and replicate, a the centre chosen
    beforehand. Nothing here grows with the number of replicates, and two sums about one centre and
    shift add up to those of all their replicates, wherever each was made.

    Attributes:
        centre: a.
        first: Σ (h − a).
        second: Σ (h − a)(h − a)ᵀ.
        cross: Σ (h − a)(u − shift).
        contributions: of u, (B,).
        streams: the numbers of those whose replicates are in it; nothing tells equal draws apart later.
        model: fingerprints of weights and batch, see `elbograd.benchmarks.variance.streams`.
    """

    centre: Float64[Tensor, "B P"]
    first: Float64[Tensor, "B P"]
    second: Float64[Tensor, "B P P"]
    cross: Float64[Tensor, "B P"]
    contributions: PowerSums
    streams: set[int] = field(default_factory=set)
    model: dict[str, str] = field(default_factory=dict)

    @classmethod
    def about(cls, centre: Float64[Tensor, "B P"], shift: Float64[Tensor, " B"]) -> Sums:
        """Nothing yet, about a centre and a shift."""
        (batch, size), zeros = centre.shape, centre.new_zeros
        return cls(
            centre, zeros(batch, size), zeros(batch, size, size), zeros(batch, size), PowerSums.about(shift)
        )

    @property
    def n(self) -> int:
        """Replicates added."""
        return self.contributions.n

    def add(self, centred: Float[Tensor, "B R P"], u: Float64[Tensor, "B R"]) -> None:
        """Add a chunk: h − a in the problem's own dtype, and u.

        The products over one chunk are taken in the dtype of h; what is kept is float64.
        """
        rest = self.contributions.add(u).to(centred.dtype)
        by_coordinate = centred.mT
        self.first += centred.sum(1, dtype=torch.float64)
        self.second += by_coordinate @ centred
        self.cross += times(by_coordinate, rest)

    def merge(self, other: Sums) -> None:
        """Add the replicates of another stream.

        Raises:
            UsageError: it was not taken about the same centre and shift, or shares a stream.
        """
        mine, theirs = self.contributions, other.contributions
        if not (torch.equal(self.centre, other.centre) and torch.equal(mine.shift, theirs.shift)):
            raise UsageError(
                "only sums of one measurement can be merged: "
                "the same problem, x, estimator, num_samples, chunk and seed"
            )
        twice = self.streams & other.streams
        if twice:
            raise UsageError(f"stream {min(twice)} would be counted twice: merge streams of other numbers")
        self.streams |= other.streams
        for name in ("first", "second", "cross"):
            getattr(self, name).add_(getattr(other, name))
        mine.powers += theirs.powers
        mine.n += theirs.n

    def are_finite(self) -> bool:
        """Whether no product has overflowed: in float32, u·(h − a) does from h = 1e13 on."""
        kept = self.first, self.second, self.cross, self.contributions.shift, self.contributions.powers
        return all_finite(*kept)

    def mean(self) -> Float64[Tensor, "B P"]:
        """E h."""
        return self.centre + self.drift()

    def drift(self) -> Float64[Tensor, "B P"]:
        """δ = E h − a."""
        return self.first / self.n

    def covariance(self) -> Float64[Tensor, "B P P"]:
        """Cov(h), with n − 1."""
        drift = self.drift()
        outer = drift.unsqueeze(-1) * drift.unsqueeze(-2)
        return (self.second / self.n - outer) * bessel(self.n)

    def cross_covariance(self) -> Float64[Tensor, "B P"]:
        """Cov(h, u), with n − 1."""
        product = self.drift() * (self.contributions.powers[0] / self.n).unsqueeze(-1)
        return (self.cross / self.n - product) * bessel(self.n)


def bessel(n: int) -> float:
    """n / (n − 1), which makes a variance unbiased."""
    return n / max(n - 1, 1)


def central_moments(
    u: Float64[Tensor, "B R"],
) -> tuple[Float64[Tensor, " B"], Float64[Tensor, " B"], Float64[Tensor, " B"]]:
    """Variance (n − 1), third and fourth central moment over the last dimension."""
    n = u.shape[-1]
    centred = u - u.mean(-1, keepdim=True)
    squared = centred.square()
    return squared.sum(-1) / max(n - 1, 1), (squared * centred).mean(-1), squared.square().mean(-1)


class Shares(NamedTuple):
    """What each of several independent data adds to a variance, and to the error of its estimate, float64.

    Attributes:
        value: of the variance.
        spread: variance (n − 1) of one replicate's contribution u to it.
        third: third central moment of u.
        fourth: fourth central moment of u.
        square_trace: tr (K C)².
    """

    value: Float64[Tensor, " B"]
    spread: Float64[Tensor, " B"]
    third: Float64[Tensor, " B"]
    fourth: Float64[Tensor, " B"]
    square_trace: Float64[Tensor, " B"]

    def over(self, scale: int) -> Shares:
        """The same with u divided by ``scale``."""
        powers = (1, 2, 3, 4, 2)
        # B⁸ of 256 data is no 64-bit integer, which is what torch takes an int for.
        return Shares(*(part / float(scale**power) for part, power in zip(self, powers, strict=True)))

    def summarize(self, n: int) -> Moments:
        """The variance that the data make together, from n replicates, with what its interval needs."""
        value, spread, third, fourth, tau = torch.stack(self).cpu().numpy()
        return summarize_data(value, spread, third, fourth, tau, n)

    def summarize_each(self, n: int) -> list[Moments]:
        """The same for each datum alone."""
        each = torch.stack(self, -1).tolist()
        return [summarize_data(v, s, m3, m4, tau, n) for v, s, m3, m4, tau in each]
