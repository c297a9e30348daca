"""Training with an estimator, and the objective along the way."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..gradients import check_estimate, check_posterior, seeded
from ..problems.placement import (
    check_dtype,
    default_batch_size,
    dtype_of,
    duplicate,
    first_batch,
    place,
    to_encoder,
)
from ..problems.protocol import Problem
from ..problems.registry import load_problem
from ..rows.schema import row
from .held_out import evaluate_elbo, importance_weighted_log_likelihood
from .step import TrainingStep

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_EVALUATION_DATA = 512  # of each split
_BASELINE_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class Checkpoint:
    """The objective at one step, in nats a datum; ``seconds`` of training only."""

    step: int
    seconds: float
    train_objective: float
    heldout_objective: float


@dataclass
class TrainResult:
    """One training run.

    Attributes:
        history: the objective at each evaluation, step 0 first.
        problem: the trained copy.
        estimator: the copy whose state was trained along.
        heldout_log_likelihood: importance-weighted, nats a datum; None where there is no prior.
        diverged: step at which the objective was found not to be finite, or None.
        learning_rate: of φ and θ.
        case: the settings, as columns of `rows`.
    """

    history: list[Checkpoint]
    problem: Problem
    estimator: Estimator
    heldout_log_likelihood: float | None
    diverged: int | None
    learning_rate: float
    case: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """Long rows: the objectives and seconds at each step, the final log-likelihood."""
        rows = []
        for point in self.history:
            failed = point.step == self.diverged
            common = {**self.case, "step": point.step, "status": "diverged" if failed else "done"}
            common["reason"] = "the objective is not finite" if failed else ""
            for metric, unit in (("train_objective", "nat"), ("heldout_objective", "nat"), ("seconds", "s")):
                rows.append(row(**common, metric=metric, value=getattr(point, metric), unit=unit))
        last = {**self.case, "step": self.history[-1].step}
        if self.heldout_log_likelihood is not None:
            value = self.heldout_log_likelihood
            rows.append(row(**last, metric="heldout_log_likelihood", value=value, unit="nat"))
        rows.append(row(**last, metric="learning_rate", value=self.learning_rate))
        return rows


def train(
    problem: Problem | str,
    estimator: Estimator | str,
    *,
    steps: int = 2000,
    num_samples: int = 1,
    batch_size: int | None = None,
    optimizer: str = "adam",
    learning_rate: float = 3e-3,
    evaluate_every: int | None = None,
    importance_samples: int = 256,
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a copy of a problem with an estimator; φ from ``surrogate``, θ from ``value``.

    Evaluation (on at most 512 data of each split, with its own fixed draws) is not counted in the
    seconds. A run whose objective is no longer finite stops and says so.

    Args:
        problem: a Problem, or its specification; left unchanged.
        estimator: an Estimator, or its specification; left unchanged.
        steps: of the optimizer.
        num_samples: S.
        batch_size: B; None for the problem's default.
        optimizer: "adam" or "sgd", for φ and θ; the estimator's own parameters always use Adam at 1e-2.
        learning_rate: of φ and θ.
        evaluate_every: steps; None for 20 evaluations.
        importance_samples: of the held-out log-likelihood at the end; 0 to leave it out.
        seed: of data order and draws.
        device: where to train; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        on_step: called with the number of steps done, for progress.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    _check_arguments(steps, num_samples, optimizer, learning_rate, evaluate_every)
    problem = load_problem(problem) if isinstance(problem, str) else problem
    estimator = create(estimator) if isinstance(estimator, str) else copy.deepcopy(estimator)
    label = getattr(problem, "label", type(problem).__name__)
    problem = duplicate(
        place(problem, device=device, dtype=check_dtype(dtype) if isinstance(dtype, str) else dtype)
    )
    batch_size = default_batch_size(problem) if batch_size is None else batch_size
    first_batch(problem, batch_size, seed)  # complains where there are too few data
    batches = _endless(problem, batch_size, seed)
    run = _Run(problem, estimator, num_samples, seed)
    first = next(batches)
    with seeded(seed, first.device):
        run.start(first, optimizer, learning_rate)
        every = evaluate_every or max(1, steps // 20)
        run.evaluate()
        for x in itertools.islice(itertools.chain((first,), batches), steps):
            run.step(x)
            if on_step is not None:
                on_step(run.steps)
            if run.steps % every == 0 or run.steps == steps:
                run.evaluate()
                if run.diverged is not None:
                    break
        final = None
        if importance_samples and run.diverged is None:
            final = importance_weighted_log_likelihood(problem, run.heldout, importance_samples, seed)
    return TrainResult(
        run.history,
        problem,
        estimator,
        final,
        run.diverged,
        learning_rate,
        case={
            "benchmark": "convergence",
            "problem": label,
            "estimator": estimator.label,
            "num_samples": num_samples,
            "batch_size": batch_size,
            "latent_dim": getattr(problem, "latent_dim", None),
            "seed": seed,
            "device": str(first.device),
            "dtype": str(dtype_of(problem)).removeprefix("torch."),
        },
    )


def tune_learning_rate(
    problem: Problem | str, estimator: Estimator | str, learning_rates: Sequence[float], **settings: Any
) -> float:
    """The learning rate with the best final training objective, each tried for one run of `train`.

    Args:
        problem: as for `train`.
        estimator: as for `train`.
        learning_rates: to try; a single one is returned untried.
        settings: of `train`. The same for every estimator, so that none is tuned harder than another.

    Raises:
        UsageError: as `train` does, or no rate is given.
    """
    if not learning_rates:
        raise UsageError("no learning rate is given")
    if len(learning_rates) == 1:
        return learning_rates[0]
    finals = {}
    for rate in learning_rates:
        run = train(problem, estimator, learning_rate=rate, importance_samples=0, **settings)
        final = run.history[-1].train_objective
        finals[rate] = final if math.isfinite(final) else -math.inf
    return max(finals, key=lambda rate: finals[rate])


class _Run:
    """The state of one training run."""

    def __init__(self, problem: Problem, estimator: Estimator, num_samples: int, seed: int) -> None:
        self.problem, self.estimator, self.num_samples, self.seed = problem, estimator, num_samples, seed
        self.history: list[Checkpoint] = []
        self.seconds, self.steps = 0.0, 0
        self.diverged: int | None = None
        self.train_data, self.heldout = (_evaluation_data(problem, split) for split in ("train", "test"))

    def start(self, x: Tensor, optimizer: str, learning_rate: float) -> None:
        target = self.problem.target(x)
        q = self.problem.posterior(self.problem.encoder(x))
        check_posterior(q, x)
        reason = self.estimator.supports(q, target, self.num_samples)
        if reason:
            raise UsageError(f"{self.estimator.label} cannot be used here: {reason}")
        self.estimator.init(q, target)
        self.estimator.to(x.device, dtype_of(self.problem)).train()
        check_estimate(self.estimator(q, target, self.num_samples), x.shape[:1])
        model = [
            p
            for side in (self.problem.encoder, self.problem.decoder)
            for p in side.parameters()
            if p.requires_grad
        ]
        own = list(self.estimator.parameters())
        optimizers = [OPTIMIZERS[optimizer](model, lr=learning_rate)]  # type: ignore[call-arg]
        if own:
            optimizers.append(torch.optim.Adam(own, lr=_BASELINE_LEARNING_RATE))
        self._step = TrainingStep(self.problem, self.estimator, optimizers, self.num_samples)

    def step(self, x: Tensor) -> None:
        before = time.perf_counter()
        self._step(x)
        self.seconds += time.perf_counter() - before
        self.steps += 1

    def evaluate(self) -> None:
        if self.heldout.is_cuda:
            before = time.perf_counter()
            torch.cuda.synchronize(self.heldout.device)  # steps still under way belong to the seconds
            self.seconds += time.perf_counter() - before
        values = [evaluate_elbo(self.problem, x, self.seed) for x in (self.train_data, self.heldout)]
        self.history.append(Checkpoint(self.steps, self.seconds, *values))
        if not all(math.isfinite(v) for v in values):
            self.diverged = self.steps


def _evaluation_data(problem: Problem, split: str) -> Tensor:
    parts, total = [], 0
    for x in problem.batches(split, _EVALUATION_DATA, None):
        parts.append(x)
        total += len(x)
        if total >= _EVALUATION_DATA:
            break
    return to_encoder(problem, torch.cat(parts)[:_EVALUATION_DATA])


def _endless(problem: Problem, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Shuffled passes one after another; a smaller last batch is left out where there are whole ones."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        served = False
        for x in problem.batches("train", batch_size, generator):
            if len(x) == batch_size or not served:
                served = True
                yield to_encoder(problem, x)
        if not served:
            raise UsageError("the problem has no training data")


def _check_arguments(
    steps: int, num_samples: int, optimizer: str, learning_rate: float, evaluate_every: int | None
) -> None:
    for name, value in (("steps", steps), ("num_samples", num_samples), ("evaluate_every", evaluate_every)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"{name} must be a positive integer, not {value!r}")
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {optimizer!r}: choose from {', '.join(OPTIMIZERS)}")
    if not 0 < learning_rate < math.inf:
        raise UsageError(f"learning rate must be positive, not {learning_rate!r}")
