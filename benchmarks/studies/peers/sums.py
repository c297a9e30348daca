"""What a loop over replicates keeps of them: sums for the mean, contributions for the variance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .shared import Shared


class ReplicateSums:
    """Streams gradients of φ; the columns are its P coordinates and the K shared directions.

    Args:
        shared: holds the reference, about which all is summed.
    """

    def __init__(self, shared: Shared) -> None:
        self._centre, self._directions = shared.reference, shared.directions
        # Two halves, replicate by replicate: one picks what the other then tests.
        self._sums = torch.zeros(2, 4, len(self._centre) + len(self._directions), dtype=torch.float64)
        self.n = 0

    def add(self, gradient: Tensor) -> float:
        """Take in one estimate ĝ (P,), float64; returns ‖ĝ − reference‖²."""
        centred = gradient - self._centre
        columns = torch.cat((centred, self._directions @ centred))
        square = columns.square()
        self._sums[self.n % 2] += torch.stack((columns, square, square * columns, square.square()))
        self.n += 1
        return float(square[: len(centred)].sum())

    def summary(self) -> dict[str, Any]:
        """Of each half and column: mean deviation, central second to fourth moments; JSON-ready."""
        sizes = torch.tensor([self.n - self.n // 2, self.n // 2], dtype=torch.float64)
        first, second, third, fourth = (self._sums / sizes[:, None, None]).unbind(1)
        mean = self._sums[:, 0].sum(0) / self.n
        return {
            "n": self.n,
            "sizes": sizes.tolist(),
            "deviation": first.tolist(),
            "variance": (second - first.square()).clamp_min(0).tolist(),
            "third": (third - 3 * first * second + 2 * first.pow(3)).tolist(),
            "fourth": (fourth - 4 * first * third + 6 * first.square() * second - 3 * first.pow(4)).tolist(),
            "squared_drift": float(mean[: len(self._centre)].square().sum()),
        }
