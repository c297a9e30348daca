"""The corners where wrong estimators hide: numbers of samples, sizes of the batch, types, modes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..rows.certificate_checks import MODES


@dataclass(frozen=True)
class Corner:
    """How estimates are asked for.

    Attributes:
        num_samples: S.
        batch_size: B.
        dtype: floating-point type, "float64" or "float32".
        mode: of the estimator, and whether θ requires a gradient; see `rows.certificate_checks.MODES`.
    """

    num_samples: int
    batch_size: int
    dtype: str = "float64"
    mode: str = "eval"

    @property
    def training(self) -> bool:
        """Whether the estimator is in training mode."""
        return self.mode.startswith("train")

    @property
    def frozen(self) -> bool:
        """Whether θ requires no gradient."""
        return self.mode.endswith("frozen")


#: Odd numbers of samples and even ones, below and above what is taken at a time (4, 8, 16, 32, 64), with as
#: many data as samples, fewer and more: what is broadcast wrongly may be right only where two sizes are
#: equal, or everywhere else. Where B is a multiple of 3, which the data of a point are, θ is looked at too.
CORNERS = (
    Corner(1, 1, "float32", "train"),
    Corner(2, 2, "float64", "train"),
    Corner(3, 3, "float32", "train"),
    Corner(4, 4, "float32", "eval"),
    Corner(1, 2, "float64", "train-frozen"),
    Corner(3, 4, "float64", "train-frozen"),
    Corner(2, 1, "float64", "eval-frozen"),
    Corner(5, 3, "float32", "train"),
    Corner(4, 3, "float64", "train"),
    Corner(7, 4, "float32", "train-frozen"),
    Corner(8, 8, "float64", "train"),
    Corner(2, 9, "float32", "train"),
    Corner(6, 3, "float64", "train"),
    Corner(9, 3, "float32", "eval"),
    Corner(5, 5, "float64", "eval-frozen"),
    Corner(1, 64, "float32", "eval-frozen"),
    Corner(12, 5, "float64", "train-frozen"),
    Corner(3, 16, "float64", "eval"),
    Corner(17, 1, "float32", "train"),
    Corner(16, 16, "float64", "eval-frozen"),
    Corner(10, 3, "float64", "train"),
    Corner(33, 3, "float64", "train"),
    Corner(64, 1, "float64", "eval"),
    Corner(100, 2, "float32", "eval-frozen"),
    Corner(129, 1, "float64", "train"),
)

_MOST_SAMPLES, _MOST_DATA = 130, 48
_BEYOND = 3  # more samples are tried than were asked for, where these are refused


def drawn_corner(seed: int) -> Corner:
    """One more, of a run's own, so that no place is safe to hide in."""
    chosen = random.Random(seed)
    num_samples = chosen.randint(1, _MOST_SAMPLES)
    batch_size = chosen.randint(1, max(int(_MOST_DATA / num_samples**0.5), 4))
    dtype, mode = chosen.choice(("float32", "float64")), chosen.choice(tuple(MODES))
    return Corner(num_samples, batch_size, dtype, mode)


def nearest(wanted: int, supported: Sequence[int]) -> int | None:
    """The least supported number of samples from the wanted one on, if it is not much more."""
    return next((s for s in supported if wanted <= s <= wanted + _BEYOND), None)
