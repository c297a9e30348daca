"""What the cases that one process measures have in common: the run's folder, checkpoints, references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...estimators.plugins.registry import create_under
from ..problems.specifications import label_of_text
from ..store.partial import PARTIAL, Partial

if TYPE_CHECKING:
    from torch import Tensor

    from ...estimators.base import Estimator
    from ..oracles.references import Reference, WholeReference
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
        self._references: dict[tuple[Any, ...], Reference | WholeReference | str] = {}

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The trajectories that estimators are compared along."""
        from ..training.checkpoints import Checkpoints

        return Checkpoints(self.folder and self.folder / "checkpoints")

    def partial(self, case_id: str) -> Partial:
        """The parts of a case that have ended, of an earlier session as well."""
        return Partial(self.folder and self.folder / PARTIAL / case_id)

    def problem_and_data(self, point: Point) -> tuple[Problem, Tensor]:
        """The problem at a point, placed, and its batch.

        Raises:
            UsageError: there is no such checkpoint, too few data, ...
        """
        from ..problems.point import placed
        from ..training.checkpoints import given_problem_at

        if point.trajectory is None:
            problem = self.checkpoints.problem_at(point.problem, point.step, point.seed, point.steps)
        else:
            problem = given_problem_at(point.problem, point.step, Path(point.trajectory), point.seed)
        return placed(
            problem, batch_size=point.batch_size, seed=point.seed, device=point.device, dtype=point.dtype
        )

    def estimator_at(
        self, point: Point, specification: str, num_samples: int
    ) -> tuple[Estimator, int | None]:
        """An estimator as a training run leaves it at a point, and the updates that its own state has seen.

        None of these for an estimator without state, at the initialization, and along a trajectory that the
        user saved: what is measured there trains the state first.

        Args:
            point: where.
            specification: of the estimator.
            num_samples: S.

        Raises:
            UsageError: the estimator cannot be used there.
            EstimatorError: it breaks the protocol.
        """
        from ..gradients import has_moving_state, make_ready, seeded
        from ..problems.as_trained import eta_of

        estimator = create_under(point.seed, specification)
        if point.step == 0 or point.trajectory is not None:
            return estimator, None
        problem, x = self.problem_and_data(point)
        with seeded(point.seed, x.device):
            make_ready(problem, estimator, x, eta_of(problem, x), num_samples)
        if not has_moving_state(estimator):
            return create_under(point.seed, specification), None
        where = point.problem, point.step, point.seed, point.steps
        state = self.checkpoints.estimator_state(*where, specification, num_samples, x)
        estimator.load_state_dict(state)
        return estimator, point.step

    def heldout_gap(self, point: Point) -> tuple[float, float] | None:
        """The held-out objective there and the gap to the best of the trajectory, nats a datum, if known."""
        if point.trajectory is None:
            return self.checkpoints.heldout_gap(point.problem, point.step, point.seed, point.steps)
        where = Path(point.trajectory)
        return self.checkpoints.given_heldout_gap(point.problem, point.step, point.seed, where)

    def reference(
        self,
        point: Point,
        objective: str,
        num_samples: int,
        problem: Problem,
        x: Tensor,
        *,
        replicates: int,
        whole: bool = False,
        look: int = 0,
        seconds: float | None = None,
    ) -> Reference | WholeReference | str:
        """The gradient to hold the means of all estimators at a point against, or why there is none.

        Each is computed once in a process, and once more where another model or batch turns up at the point.

        Args:
            point: where.
            objective: "elbo", "iwae", ...
            num_samples: S, which some objectives depend on.
            problem: there, placed.
            x: (B, ...).
            replicates: of the measurements that it serves, which a long run is in proportion to.
            whole: in φ-space.
            look: 0, or 1 for another one, independent of the first unless exact.
            seconds: that it may take.
        """
        from ..oracles.clock import Clock
        from ..oracles.references import length_for, reference_gradient, whole_reference
        from ..seeds import hashed

        key = point, objective, num_samples, replicates, whole, look, _fingerprint(problem, x)
        if key not in self._references:
            title = title_of(point, objective)
            self._references[key] = (whole_reference if whole else reference_gradient)(
                problem,
                x,
                point.seed if look == 0 else hashed(point.seed, "another reference", look),
                objective,
                num_samples,
                length=length_for(replicates),
                clock=Clock(seconds, self.tell, title),
            )
        return self._references[key]


def title_of(point: Point, objective: str) -> str:
    """What a progress line calls a reference."""
    of = "" if objective == "elbo" else f" of {objective}"
    return f"reference for the bias{of}, {label_of_text(point.problem)} at step {point.step}"


def _fingerprint(problem: Problem, x: Tensor) -> tuple[float, ...]:
    """What tells two models, or two batches, apart."""
    return tuple(float(part.detach().double().sum()) for part in _tensors(problem, x))


def _tensors(problem: Problem, x: Tensor) -> Iterator[Tensor]:
    yield x.to_dense() if x.is_sparse else x
    yield from problem.encoder.parameters()
    yield from problem.decoder.parameters()
