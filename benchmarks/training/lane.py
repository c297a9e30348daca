"""What a lane of many training runs needs: random numbers of its own, and its divergence told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..vmapping import LaneOf
from .own_draws import OwnDraws, may_draw


class TrainingLane(LaneOf):
    """Draws run by run, and notes what a distribution refuses, which would stop all runs.

    Args:
        anchor: zero, (), of this lane.
        draws: of all lanes.

    Attributes:
        refused: whether a distribution was given what it does not take, (), bool; None where none looks.
    """

    def __init__(self, anchor: Tensor, draws: OwnDraws) -> None:
        super().__init__(anchor)
        self._draws = draws
        self.refused: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._is_all_true:  # by which distributions validate
            wrong = ~args[0].all()
            self.refused = wrong if self.refused is None else self.refused | wrong
            return True
        if may_draw(func):
            with self._draws:
                return super().__torch_function__(func, types, args, kwargs)
        return super().__torch_function__(func, types, args, kwargs)
