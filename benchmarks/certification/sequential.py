"""Is a mean what it should be? Asked at look after look, each on fresh draws.

A look screens all columns at 1e-3: half of it on the largest |H| (Hall's transform of Student's t), half on
T² over all of them jointly. A screen alone rejects nothing: the next look, on draws of its own, must confirm
the same direction one-sidedly at ``confirm_level``. So a look at a true mean rejects with probability
1e-3 × confirm_level, and N looks with N times that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from ...estimators.testing.mean_test import MAX_SKEW, SCREEN_LEVEL, hall_transform
from .moments import ColumnSums

_ENOUGH_FOR_JOINT = 16_384  # draws
_TINY = 1e-300
_SMALLEST_EIGENVALUE = 1e-8  # of the correlation matrix, relative to the largest


@dataclass(frozen=True)
class Rejection:
    """A mean that is not what it should be.

    Attributes:
        column: the one that is furthest off.
        deviation: of its mean, on the draws that confirmed it.
        stderr: of the deviation.
        draws: taken in all when it was confirmed.
    """

    column: int
    deviation: float
    stderr: float
    draws: int


class MeanTest:
    """The test of one block of columns (see the module).

    Args:
        floor: (K,), smallest standard error that is believed of each column.
        joint: columns that T² is taken over, the first ones; 0 for none.
        confirm_level: of a confirmation.
        copies: of each column there are so many alike, whose mean is less skewed than one of them: where that
            has a verdict, they need none each.
    """

    def __init__(self, floor: Tensor, joint: int, confirm_level: float, copies: int = 1) -> None:
        self.floor, self.joint = floor, joint
        self._skew = MAX_SKEW * copies**0.5
        self._level = confirm_level
        self._suspect: Tensor | None = None  # unit of what an alarm found, in all columns
        self._draws = 0
        self.rejection: Rejection | None = None
        #: Whether every column, or its mean with those like it, had a verdict at the last look.
        self.settled = False

    @property
    def waiting(self) -> bool:
        """Whether an alarm waits for the next look."""
        return self._suspect is not None and self.rejection is None

    def sums(self) -> ColumnSums:
        """What the next look adds its draws to."""
        joint = self._suspect if self._suspect is not None and len(self._suspect) == self.joint else None
        return ColumnSums(self.joint, joint)

    def take(self, sums: ColumnSums, screen: bool = True) -> None:
        """Judge a look.

        Args:
            sums: of its draws, begun by `sums`.
            screen: whether it may raise an alarm; otherwise it only confirms an earlier one.
        """
        mean, variance, third = sums.central
        columns = len(self.floor)
        self._draws += sums.n
        h, g = hall_transform(mean[:columns], variance[:columns], third[:columns], sums.n, self.floor)
        if self._suspect is not None:
            self._confirm(sums, h, g)
            if self.rejection is not None:
                return
        self._suspect = None
        judged = g.abs() <= MAX_SKEW
        self.settled = bool((g.abs() <= self._skew).all())
        if screen:
            t = mean[:columns] / (variance[:columns] / sums.n + self.floor**2).sqrt().clamp_min(_TINY)
            self._suspect = self._largest(h, t, judged, sums.n)
            if self._suspect is None:
                self._suspect = self._jointly(sums, mean, variance)

    def _confirm(self, sums: ColumnSums, h: Tensor, g: Tensor) -> None:
        assert self._suspect is not None
        mean, variance, third = sums.central
        if sums.direction is not None:  # a direction in the joint columns
            floor = float((self._suspect.abs() * self.floor[: self.joint]).sum())
            one_h, one_g = hall_transform(mean[-1], variance[-1], third[-1], sums.n, floor)
            size = self._suspect.abs() * variance[: self.joint].sqrt()
            worst = int((size * (h[: self.joint] * self._suspect.sign()).clamp_min(0)).argmax())
        else:
            worst = int(self._suspect.abs().argmax())
            one_h, one_g = h[worst] * self._suspect[worst].sign(), g[worst]
        if abs(float(one_g)) <= MAX_SKEW and float(one_h) > _quantile(self._level, sums.n):
            stderr = float((variance[worst] / sums.n).sqrt())
            self.rejection = Rejection(worst, float(mean[worst]), stderr, self._draws)

    def _largest(self, h: Tensor, t: Tensor, judged: Tensor, n: int) -> Tensor | None:
        level = SCREEN_LEVEL / 2 if self.joint else SCREEN_LEVEL
        alarmed = judged & (h.abs() > _quantile(level / (2 * len(h)), n))
        if not bool(alarmed.any()):
            return None
        # Far out H grows with the skewness, and the most skewed column is the last to be confirmed.
        column = int(torch.where(alarmed, t.abs(), -torch.ones_like(t)).argmax())
        suspect = torch.zeros(len(h) + 1, dtype=torch.float64)  # one longer, so that no direction is like it
        suspect[column] = h[column].sign()
        return suspect

    def _jointly(self, sums: ColumnSums, mean: Tensor, variance: Tensor) -> Tensor | None:
        """T² over the correlation matrix's eigenvectors; the direction Σ⁻¹ mean of an alarm."""
        live = (variance[: self.joint] / sums.n > self.floor[: self.joint] ** 2).nonzero().squeeze(1)
        if sums.n < max(_ENOUGH_FOR_JOINT, 8 * self.joint) or len(live) < 2:
            return None
        scale = variance[live].sqrt()
        correlation = sums.covariance[live][:, live] / torch.outer(scale, scale)
        eigenvalues, vectors = torch.linalg.eigh(correlation)
        kept = eigenvalues > _SMALLEST_EIGENVALUE * eigenvalues[-1]
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        along = vectors.T @ (mean[live] / scale)
        t_squared = float(sums.n * (along**2 / eigenvalues).sum())
        if not t_squared > joint_quantile(SCREEN_LEVEL / 2, len(eigenvalues), sums.n):
            return None
        suspect = torch.zeros(self.joint, dtype=torch.float64)
        suspect[live] = vectors @ (along / eigenvalues) / scale
        return suspect / suspect.norm()


def _quantile(level: float, n: int) -> float:
    """What H of n draws passes with this probability: Student's, since means of few groups are tested too."""
    return float(stats.t.isf(level, n - 1))


def joint_quantile(level: float, columns: int, n: int) -> float:
    """What T² over so many columns of n draws passes with this probability: Hotelling's quantile."""
    return float(columns * (n - 1) / (n - columns) * stats.f.isf(level, columns, n - columns))
