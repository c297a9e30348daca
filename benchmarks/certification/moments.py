"""Sums over draws, from which means, their tests and bounds are computed; memory does not grow with draws."""

from __future__ import annotations

import torch
from torch import Tensor


class ColumnSums:
    """Sums of the powers of every column, and of products of the first ``joint`` columns.

    The draws are deviations from what their mean should be, so that raw moments lose nothing.

    Args:
        joint: columns whose covariance is wanted.
        direction: (joint,), along which the draws are followed as one column more; None for none.
    """

    def __init__(self, joint: int, direction: Tensor | None = None) -> None:
        self.joint, self.direction = joint, direction
        self.n = 0
        self.powers: tuple[Tensor, Tensor, Tensor] | None = None
        self.products = torch.zeros(joint, joint, dtype=torch.float64)

    def add(self, draws: Tensor, times: int = 1) -> None:
        """Take draws (m, K), each ``times`` over."""
        draws = draws.detach().to("cpu", torch.float64)
        if self.joint:
            main = draws[:, : self.joint]
            self.products.addmm_(main.T, main, alpha=times)
            if self.direction is not None:
                draws = torch.cat((draws, (main @ self.direction).unsqueeze(1)), 1)
        squares = draws.square()
        sums = [times * part.sum(0) for part in (draws, squares, squares * draws)]
        self.n += times * len(draws)
        old = self.powers or tuple(torch.zeros_like(part) for part in sums)
        self.powers = tuple(a + b for a, b in zip(old, sums, strict=True))  # type: ignore[assignment]

    @property
    def central(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and third central moment of every column, the direction's last."""
        assert self.powers is not None
        mean, second, third = (part / self.n for part in self.powers)
        return mean, (second - mean**2).clamp_min(0), third - 3 * mean * second + 2 * mean**3

    @property
    def covariance(self) -> Tensor:
        """Covariance of the joint columns, (joint, joint)."""
        assert self.powers is not None
        mean = self.powers[0][: self.joint] / self.n
        return self.products / self.n - torch.outer(mean, mean)

    def pooled(self, other: ColumnSums) -> ColumnSums:
        """Both together; a direction, which belongs to one look, is left out."""
        both = ColumnSums(self.joint)
        for part in (self, other):
            if part.powers is None:
                continue
            columns = len(part.powers[0]) - (part.direction is not None)
            powers = [p[:columns] for p in part.powers]
            old = both.powers or tuple(torch.zeros_like(p) for p in powers)
            both.powers = tuple(a + b for a, b in zip(old, powers, strict=True))  # type: ignore[assignment]
            both.products = both.products + part.products
            both.n += part.n
        return both
