"""Shifted power sums in float64: moments that combine exactly by addition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ContributionSums:
    """Power sums, about a fixed shift, of each replicate's contributions u to the variances.

    A contribution is u_g = (h − a)ᵀ K_g (h − a) for datum i and group g of parameters, with a the
    centre chosen from the first chunk; sums over replicates are all that is kept.

    Attributes:
        shift: (G, B), about the mean of u.
        powers: (4, G, B), Σ (u − shift)^k for k = 1..4.
        n: replicates added.
    """

    shift: Tensor
    powers: Tensor
    n: int = 0

    @classmethod
    def starting_at(cls, u: Tensor) -> ContributionSums:
        """Choose the shift from a first chunk u (R, G, B); does not add it."""
        shift = u.mean(0)
        return cls(shift, shift.new_zeros(4, *shift.shape))

    def add(self, u: Tensor) -> Tensor:
        """Add a chunk u (R, G, B), float64; returns u less the shift."""
        centred = u - self.shift
        power = centred
        for order in range(4):
            self.powers[order] += power.sum(0)
            power = power * centred
        self.n += len(u)
        return centred

    def mean(self) -> Tensor:
        """Mean of u, (G, B)."""
        return self.shift + self.powers[0] / self.n

    def central(self) -> tuple[Tensor, Tensor, Tensor]:
        """Variance (n − 1), third and fourth central moment of u, each (G, B)."""
        first, second, third, fourth = self.powers / self.n
        variance = (second - first**2) * (self.n / max(self.n - 1, 1))
        m3 = third - 3 * first * second + 2 * first**3
        m4 = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return variance.clamp_min(0), m3, m4.clamp_min(0)


@dataclass
class VectorSums:
    """Mean and covariance of vectors h (R, B, P), and their covariance with contributions.

    Attributes:
        centre: (B, P), a.
        first: (B, P), Σ (h − a).
        second: (B, P, P), Σ (h − a)(h − a)ᵀ.
        cross: (G, B, P), Σ (h − a)(u − shift).
    """

    centre: Tensor
    first: Tensor
    second: Tensor
    cross: Tensor
    n: int = 0

    @classmethod
    def starting_at(cls, h: Tensor, groups: int) -> VectorSums:
        """Choose the centre from a first chunk h (R, B, P); does not add it."""
        centre = h.mean(0)
        batch, size = centre.shape
        zeros = centre.new_zeros
        return cls(centre, zeros(batch, size), zeros(batch, size, size), zeros(groups, batch, size))

    def add(self, centred: Tensor, contributions: Tensor) -> None:
        """Add h − a (R, B, P) and u − shift (R, G, B), float64."""
        by_datum = centred.transpose(0, 1)  # (B, R, P): the products below are batched over data
        self.first += centred.sum(0)
        self.second += by_datum.transpose(1, 2) @ by_datum
        self.cross += (contributions.permute(2, 1, 0) @ by_datum).transpose(0, 1)
        self.n += len(centred)

    def mean(self) -> Tensor:
        """E h, (B, P)."""
        return self.centre + self.first / self.n

    def drift(self) -> Tensor:
        """δ = E h − a, (B, P)."""
        return self.first / self.n

    def covariance(self) -> Tensor:
        """Cov(h), (B, P, P), with n − 1."""
        drift = self.drift()
        outer = drift.unsqueeze(-1) * drift.unsqueeze(-2)
        return (self.second / self.n - outer) * (self.n / max(self.n - 1, 1))

    def cross_covariance(self, contributions: ContributionSums) -> Tensor:
        """Cov(h, u), (G, B, P), with n − 1."""
        product = self.drift() * (contributions.powers[0] / self.n).unsqueeze(-1)
        return (self.cross / self.n - product) * (self.n / max(self.n - 1, 1))


def in_float64(tensor: Tensor) -> Tensor:
    """Move a tensor to float64, where sums are kept."""
    return tensor.to(torch.float64)
