"""What the cases that one process measures have in common: the run's folder, checkpoints, references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..oracles.references import Reference
    from ..problems.protocol import Problem
    from ..training.checkpoints import Checkpoints

#: Given what is being done, and the share of its time that is spent.
Tell = Callable[[str, float], None]


def silent(_text: str, _share: float) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Point:
    """Where estimators are compared: the parameters of a problem at a step of a trajectory, and its batch.

    Attributes:
        problem: its specification.
        batch_size: B; None for the problem's default.
        seed: of the trajectory and the data.
        device: where.
        dtype: floating-point type.
        step: training steps; 0 for the initialization.
        steps: all at which this run measures the problem.
        trajectory: folder of one that the user saved; None for the run's own.
    """

    problem: str
    batch_size: int | None
    seed: int
    device: str
    dtype: str
    step: int
    steps: tuple[int, ...]
    trajectory: str | None


class Session:
    """Passed to every execution; made once a process and run.

    Args:
        folder: of the run; None where it cannot be seen.
        timings: whether seconds may be measured.
        tell: told what is being done by what takes long.
    """

    def __init__(self, folder: Path | None = None, *, timings: bool = True, tell: Tell = silent) -> None:
        self.folder, self.timings, self.tell = folder, timings, tell
        self._references: dict[Point, Reference | None] = {}

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The trajectories that estimators are compared along."""
        from ..training.checkpoints import Checkpoints

        return Checkpoints(self.folder and self.folder / "checkpoints")

    def problem_and_data(self, point: Point) -> tuple[Problem, Tensor]:
        """The problem at a point, placed, and its batch.

        Raises:
            UsageError: there is no such checkpoint, too few data, ...
        """
        from ..problems.placement import check_dtype, default_batch_size, first_batch, place
        from ..training.checkpoints import given_problem_at

        if point.trajectory is None:
            problem = self.checkpoints.problem_at(point.problem, point.step, point.seed, point.steps)
        else:
            problem = given_problem_at(point.problem, point.step, Path(point.trajectory))
        problem = place(problem, device=point.device, dtype=check_dtype(point.dtype))
        return problem, first_batch(problem, point.batch_size or default_batch_size(problem), point.seed)

    def heldout_gap(self, point: Point) -> tuple[float, float] | None:
        """The held-out objective there and the gap to the best of the trajectory, nats a datum, if known."""
        if point.trajectory is None:
            return self.checkpoints.heldout_gap(point.problem, point.step, point.seed, point.steps)
        where = Path(point.trajectory)
        return self.checkpoints.given_heldout_gap(point.problem, point.step, point.seed, where)

    def reference(self, point: Point) -> Reference | None:
        """The gradient to hold the means of all estimators at a point against, if there is one."""
        from ..oracles.references import reference_gradient

        if point not in self._references:
            self._references[point] = reference_gradient(*self.problem_and_data(point), seed=point.seed)
        return self._references[point]
