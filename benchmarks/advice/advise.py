"""`advise`: which estimator to use on a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import seeded
from ..jacobians.encoder import encoder_jacobian
from ..problems.arguments import check_called, check_choice, check_positive, checked_seed, counts, shown
from ..problems.as_trained import as_trained
from ..problems.checks import attribute, check_trainable
from ..problems.model_checks import check_model
from ..problems.placement import dtype_of
from ..problems.point import label_of, placed
from ..problems.protocol import Problem
from ..training.state import State
from ..training.trajectory import walk
from ..variance.arguments import ROUTES
from .budget import Budget, Progress, silent
from .candidates import Candidate, LeftOut, find_candidates, workspace
from .contender import Point
from .measure import Outcome, measure_point
from .rank import rank_all
from .result import Advice


@as_trained()
def advise(
    problem: Problem | str,
    estimators: Sequence[Estimator | str] | None = None,
    x: Tensor | None = None,
    *,
    num_samples: Sequence[int] = (1, 4, 16),
    train_steps: int = 0,
    budget: float = 60.0,
    batch_size: int | None = None,
    route: str = "factorized",
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    on_progress: Progress = silent,
) -> Advice:
    """Rank estimators on a model by variance × seconds of a training-step gradient, tr Cov(ĝ) × c.

    That product is the variance left after a second of independent estimates is averaged, whatever a single
    one costs. A first look at every estimator and S chooses each one's S and the replicates it gets; what is
    reported is drawn and timed afresh, in turns. Estimators of other objectives are ranked apart, at each S
    where the objective depends on it. The problem is left unchanged.

    Seeds fix the draws, but how many there is time for, and the seconds, are the machine's.

    Args:
        problem: a Problem, or its specification.
        estimators: Estimators or specifications; None for all of the catalogue.
        x: data (B, ...); None for the first training batch under ``seed``.
        num_samples: S to choose from, as far as each supports them.
        train_steps: N, to measure at step 0 and after N steps of one training run (Adam at 3e-3, by
            reparameterization, or by leave-one-out where the posterior has no rsample).
        budget: seconds of measuring, over all points; training comes on top.
        batch_size: B when x is None; None for the problem's default.
        route: see `measure_variance`.
        seed: of data, training and draws.
        device: where to measure; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        on_progress: called with what is being done and the share of the point's time that is spent.

    Returns:
        The advice; after an interrupt (Ctrl-C) that of what was measured by then, ``interrupted``.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.

    Example:
        >>> from elbograd.benchmarks import advise
        >>> a = advise("quadratic[k=0.5]", ["reparameterization", "score-function"], budget=1.0)
        >>> a.rankings[0].tied[0].measured.estimator
        'reparameterization'
    """
    num_samples, (train_steps,) = _sizes(num_samples), counts(train_steps=train_steps)
    check_positive("number of seconds", budget=budget)
    check_called(on_progress=on_progress)
    seed = checked_seed(seed)
    problem, x = prepare_problem(problem, x, batch_size, route, seed, device, dtype)
    label = label_of(problem)
    with seeded(seed, x.device):
        if train_steps:
            on_progress(f"training {train_steps} steps", 0.0)
        states = trained(problem, train_steps, seed)
        candidates, left_out = find_candidates(problem, x, estimators, num_samples)
        if route == "factorized":
            encoder_jacobian(problem.encoder, x[:1]).gram()  # what torch imports for it is not measuring
        begun = time.perf_counter()
        outcomes: dict[int, Outcome] = {}
        for step, state in states.items():
            share = Budget(budget / len(states), _at_step(on_progress, step, len(states)))
            outcomes[step] = _at(problem, x, step, seed, route, state, candidates, share)
            if outcomes[step].interrupted:
                break
    return Advice(
        label,
        tuple(rank_all([m for outcome in outcomes.values() for m in outcome.measured])),
        {step: (*left_out, *outcome.left_out) for step, outcome in outcomes.items()},
        len(x),
        str(x.device),
        str(dtype_of(problem)).removeprefix("torch."),
        time.perf_counter() - begun,
        any(outcome.interrupted for outcome in outcomes.values()),
        any(outcome.screened_only for outcome in outcomes.values()),
    )


def prepare_problem(
    problem: Problem | str,
    x: Tensor | None,
    batch_size: int | None,
    route: str,
    seed: int,
    device: str | None,
    dtype: torch.dtype | str | None,
) -> tuple[Problem, Tensor]:
    """A copy of the problem, placed, and its batch; arguments as those of `advise`, checked."""
    check_choice(ROUTES, route=route)
    problem, x = placed(problem, x, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
    check_trainable(problem)
    copied = workspace(problem)
    if not attribute(copied, "label", ""):
        _try_label(copied, label_of(problem))
    return copied, x


def _try_label(problem: Problem, label: str) -> None:
    try:
        problem.label = label  # type: ignore[attr-defined]
    except AttributeError:  # a frozen dataclass, or one with slots, goes by its type
        return


def trained(problem: Problem, train_steps: int, seed: int) -> dict[int, State | None]:
    """Step -> state of the problem there, None for as it is."""
    if not train_steps:
        return {0: None}
    states = walk(workspace(problem), (0, train_steps), seed).states
    return {0: None, train_steps: states[train_steps]}


def _at(
    problem: Problem,
    x: Tensor,
    step: int,
    seed: int,
    route: str,
    state: State | None,
    candidates: Sequence[Candidate],
    budget: Budget,
) -> Outcome:
    if state is not None:
        problem.encoder.load_state_dict(state["encoder"])
        problem.decoder.load_state_dict(state["decoder"])
    check_model(problem, x, route)
    return measure_point(Point(problem, x, step, seed, route), candidates, budget)


def _at_step(progress: Progress, step: int, points: int) -> Callable[[str, float], None]:
    if points == 1:
        return progress
    return lambda text, share: progress(f"step {step}: {text}", share)


def _sizes(num_samples: object) -> tuple[int, ...]:
    """Every S to choose from."""
    if isinstance(num_samples, str | bytes) or not isinstance(num_samples, Sequence):
        raise UsageError(f"num_samples must be a list of S, such as (1, 4), not {shown(num_samples)}")
    if not num_samples:
        raise UsageError("num_samples is empty: give at least one S")
    return tuple(counts(num_samples=s)[0] for s in num_samples)


__all__ = ["Advice", "LeftOut", "advise"]
