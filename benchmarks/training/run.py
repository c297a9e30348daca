"""One training run while it is under way: steps, seconds, the objective along the way."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ..gradients import STATE_LEARNING_RATE, check_estimate, make_ready
from ..problems.buffers import kept_buffers_of
from ..problems.forward_checks import checked_eta
from ..problems.protocol import Problem
from .batches import evaluation_data
from .held_out import evaluate_elbo
from .result import Checkpoint
from .state import State, state_of
from .step import TrainingStep, out_of_domain

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_EVALUATION_DATA = 512  # of each split


class Run:
    """The state of one training run.

    Args:
        problem: trained in place.
        estimator: trained along.
        num_samples: S.
        seed: of the evaluations, which draw apart from the training.
        splits: of the data that the objective is evaluated on: what is trained on or chosen by, and what is
            held out.
        kept_at: steps at which the model is kept, of those that are evaluated.

    Attributes:
        history: the objective at each evaluation.
        steps: taken.
        diverged: step at which the objective was found not to be finite, or None.
        training_step: once the optimizers are made.
        heldout: data that the objective is evaluated on, (N, ...).
        states: step -> the model as it was then.
    """

    def __init__(
        self,
        problem: Problem,
        estimator: Estimator,
        num_samples: int,
        seed: int,
        splits: tuple[str, str] = ("train", "test"),
        kept_at: Collection[int] = (),
    ) -> None:
        self.problem, self.estimator, self.num_samples, self.seed = problem, estimator, num_samples, seed
        self.history: list[Checkpoint] = []
        self.states: dict[int, State] = {}
        self._kept_at = kept_at
        self.steps, self._seconds = 0, 0.0
        self.diverged: int | None = None
        self._train_data, self.heldout = (
            evaluation_data(problem, split, _EVALUATION_DATA) for split in splits
        )

    def start(self, x: Tensor) -> None:
        """Show the estimator the first batch x (B, ...).

        Raises:
            UsageError: the estimator does not support the problem.
            EstimatorError: it breaks the protocol.
        """
        with kept_buffers_of(self.problem):  # which only steps are to move
            q, target = make_ready(
                self.problem, self.estimator, x, checked_eta(self.problem, x), self.num_samples
            )
            self.estimator.train()
            check_estimate(self.estimator(q, target, self.num_samples), x.shape[:1])

    def optimize(self, optimizer: str, learning_rate: float) -> None:
        """Make the optimizers: that of the model, one of `OPTIMIZERS`, and that of the estimator's own."""
        sides = (self.problem.encoder, self.problem.decoder)
        model = [p for side in sides for p in side.parameters() if p.requires_grad]
        own = list(self.estimator.parameters())
        optimizers = [OPTIMIZERS[optimizer](model, lr=learning_rate)]  # type: ignore[call-arg]
        if own:
            optimizers.append(torch.optim.Adam(own, lr=STATE_LEARNING_RATE))
        self.training_step = TrainingStep(self.problem, self.estimator, optimizers, self.num_samples)

    def step(self, x: Tensor) -> bool:
        """Take one step on a batch x (B, ...), timed; False where it could not be taken: the run diverged."""
        before = time.perf_counter()
        try:
            self.training_step(x)
        except (ValueError, RuntimeError) as error:
            if not out_of_domain(error):
                raise
            self.refuse()
            return False
        self._seconds += time.perf_counter() - before
        self.steps += 1
        return True

    def took(self, steps: int, seconds: float) -> None:
        """Note steps that others have taken: how many in all, and in how many more seconds."""
        self.steps = steps
        self._seconds += seconds

    def refuse(self) -> None:
        """Put down that the next step cannot be taken: the run has diverged."""
        self._put_down(math.nan, math.nan, self.steps + 1)

    def evaluate(self) -> None:
        """Put down the objective as it is now; see whether it is finite."""
        if self.heldout.is_cuda:
            before = time.perf_counter()
            torch.cuda.synchronize(self.heldout.device)  # steps still under way belong to the seconds
            self._seconds += time.perf_counter() - before
        try:
            train, heldout = (
                evaluate_elbo(self.problem, x, self.seed) for x in (self._train_data, self.heldout)
            )
        except (ValueError, RuntimeError) as error:
            if not out_of_domain(error):
                raise
            train = heldout = math.nan
        if self.steps in self._kept_at:
            self.states[self.steps] = state_of(self.problem)
        self._put_down(train, heldout, self.steps)

    def _put_down(self, train: float, heldout: float, step: int) -> None:
        self.history.append(Checkpoint(step, self._seconds, train, heldout))
        if not (math.isfinite(train) and math.isfinite(heldout)):
            self.diverged = step
