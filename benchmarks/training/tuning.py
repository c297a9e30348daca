"""Tuning with an equal budget: the same random trials for every estimator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from ...estimators.errors import UsageError
from ..problems.arguments import check_called, check_choice, check_positive, checked_seed, counts, shown
from ..problems.fingerprint import of_batch
from ..problems.placement import batches_of
from ..problems.point import resolve_problem
from ..problems.protocol import Problem
from ..rows.schema import row
from ..statistics.best_of import expected_best
from .begin import Planned
from .many import train_planned
from .result import NOT_FINITE, TrainResult
from .run import OPTIMIZERS
from .trials import PlannedTrial, at_edge, planned_trials, with_own

_AT_ONCE = 10  # trials: what a kill loses at most
_COMPARED, _ALL = 64, 2**14  # data of a split that are held against those of others

#: Given a name and what computes a part: that, or as it was kept.
Kept = Callable[[str, Callable[[], list[dict[str, Any]]]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 1.
        learning_rate: of φ and θ.
        own: the estimator's hyperparameters, by name.
        score: the objective at the end on the data that are chosen by, nats a datum. Of a trial that diverged
            what it was before the first step: such a trial leaves nothing better.
        diverged: whether it did.
        rows: long rows, of the objectives along the way.
        note: what else has to be known of it.
    """

    number: int
    learning_rate: float
    own: Mapping[str, float]
    score: float
    diverged: bool
    rows: list[dict[str, Any]]
    note: str = ""


@dataclass(frozen=True)
class Tuning:
    """What random search has found.

    Attributes:
        trials: all, in order.
        chosen_on: the split of the data that trials were scored on: "validation", or "train" where the
            problem has no such data.
        edge: "lower" or "upper" where the best rate is at that edge of its range, else "".
        estimator: the specification with the hyperparameters of the best trial.
    """

    trials: tuple[Trial, ...]
    chosen_on: str
    edge: str
    estimator: str

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score; None where every trial diverged."""
        return best_of(self.trials)

    def expected_best(self) -> list[float]:
        """E[the highest score of k trials], k = 1, ..., N, nats a datum: see `statistics.best_of`."""
        return [float(value) for value in expected_best([trial.score for trial in self.trials])]


def tune(
    problem: Problem | str,
    estimator: str,
    *,
    trials: int = 20,
    learning_rates: tuple[float, float] = (1e-4, 3e-2),
    steps: int = 500,
    num_samples: int = 1,
    batch_size: int | None = None,
    optimizer: str = "adam",
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tuning:
    """Random search for the learning rate and the estimator's own hyperparameters (`Estimator.search_space`).

    Under one seed the k-th trial has the same learning rate, initial weights, data order and draws whatever
    the estimator, so that a comparison of estimators is one of equal budgets. A trial is scored by the
    objective at its end, on validation data where the problem has them, else on training data.

    Args:
        problem: as for `train`.
        estimator: its specification; what it sets is not tuned.
        trials: N.
        learning_rates: the lowest and the highest, between which they are log-uniform.
        steps: of each trial.
        num_samples: S.
        batch_size: B; None for the problem's default.
        optimizer: "adam" or "sgd".
        seed: of the trials.
        device: where to train; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        on_step: called with the trials that have ended and the steps that the others have taken.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    trials, steps, num_samples = counts(trials=trials, steps=steps, num_samples=num_samples)
    seed = checked_seed(seed)
    check_choice(OPTIMIZERS, optimizer=optimizer)
    if on_step is not None:
        check_called(on_step=on_step)
    low, high = _checked_range(learning_rates)
    if not isinstance(estimator, str):
        raise UsageError(
            f"estimator must be a specification, such as 'leave-one-out', not {shown(estimator)}"
        )
    split = split_to_choose_by(resolve_problem(problem, seed))
    found = run_trials(
        planned_trials(estimator, trials, (low, high), seed),
        lambda own: resolve_problem(problem, own),
        estimator,
        split=split,
        keep=lambda _, compute: compute(),
        on_step=on_step or (lambda ended, step: None),
        steps=steps,
        optimizer=optimizer,
        evaluate_every=steps,
        num_samples=num_samples,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    best = best_of(found)
    edge = "" if best is None else at_edge(best.learning_rate, (low, high))
    return Tuning(tuple(found), split, edge, with_own(estimator, best.own if best else {}))


def _checked_range(given: object) -> tuple[float, float]:
    ends = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if len(ends) != 2:
        raise UsageError(f"learning_rates must be two numbers, such as (1e-4, 3e-2), not {shown(given)}")
    for rate in ends:
        check_positive(learning_rate=rate)
    low, high = map(float, ends)
    if not low < high:
        raise UsageError(f"learning_rates must be a lowest and a highest, not {shown(given)}")
    return low, high


def run_trials(
    planned: Sequence[PlannedTrial],
    model: Callable[[int], Problem],
    estimator: str,
    *,
    split: str,
    keep: Kept,
    on_step: Callable[[int, int], None],
    **settings: Any,
) -> list[Trial]:
    """All trials, in order.

    Args:
        planned: what to try.
        model: the problem under a seed.
        estimator: its specification.
        split: of the data that are chosen by.
        keep: given a name and what computes a group of trials, computes them unless they are kept.
        on_step: called with the trials that have ended and the steps that the others have taken.
        settings: the others of `train_planned`.

    Raises:
        UsageError: what is asked for cannot be trained.
        EstimatorError: the estimator breaks the protocol.
    """
    found: list[Trial] = []
    for group in _groups(planned):
        name = f"trials-{group[0].number}-{group[-1].number}"
        done = len(found)

        def train(group: Sequence[PlannedTrial] = group, done: int = done) -> list[dict[str, Any]]:
            results = train_planned(
                [Planned(model(one.seed), one.seed, one.learning_rate) for one in group],
                with_own(estimator, group[0].own),
                importance_samples=0,
                splits=(split, "test"),
                on_step=lambda step: on_step(done, step),
                **settings,
            )
            return [vars(_trial(one, run)) for one, run in zip(group, results, strict=True)]

        found += [Trial(**each) for each in keep(name, train)]
    return sorted(found, key=lambda trial: trial.number)


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the highest score that did not diverge; None where all did."""
    return max((one for one in trials if not one.diverged), key=lambda one: one.score, default=None)


def split_to_choose_by(problem: Problem) -> str:
    """The validation split where the problem has such data, apart from all others; else "train".

    Where every other name is taken for one of "train" and "test" there is none: most of its data are then
    among those, in whatever order.
    """
    try:
        held_out = _fingerprints(problem, "validation", _COMPARED)
    except Exception:  # a user's problem may raise anything for a split that it does not know
        return "train"
    if not held_out:
        return "train"
    others = _fingerprints(problem, "test", _ALL) | _fingerprints(problem, "train", _ALL)
    return "train" if 2 * len(held_out & others) > len(held_out) else "validation"


def _fingerprints(problem: Problem, split: str, most: int) -> set[str]:
    """Of the first data of a split."""
    found: set[str] = set()
    for x in batches_of(problem, split, _COMPARED):
        found |= {of_batch(datum) for datum in x.split(1)}
        if len(found) >= most:
            break
    return found


def _groups(planned: Sequence[PlannedTrial]) -> Iterable[list[PlannedTrial]]:
    """Trials to be trained side by side: those that share the estimator's own hyperparameters."""
    alike = sorted(planned, key=lambda one: (sorted(one.own.items()), one.number))
    for _, group in groupby(alike, key=lambda one: sorted(one.own.items())):
        several = list(group)
        for start in range(0, len(several), _AT_ONCE):
            yield several[start : start + _AT_ONCE]


def _trial(planned: PlannedTrial, run: TrainResult) -> Trial:
    last = run.history[-1] if run.diverged is None else run.history[0]
    return Trial(
        planned.number,
        planned.learning_rate,
        dict(planned.own),
        last.train_objective,
        run.diverged is not None,
        list(_rows(planned, run)),
        "; ".join(run.notes),
    )


def _rows(planned: PlannedTrial, run: TrainResult) -> Iterator[dict[str, Any]]:
    tried = {"learning_rate": planned.learning_rate, **planned.own}
    named = {
        **run.case,
        "objective": run.objective,
        "parameter": f"trial {planned.number}",
        "parameters": json.dumps(tried, sort_keys=True),
    }
    for point in run.history:
        failed = point.step == run.diverged
        status = {"status": "diverged", "reason": NOT_FINITE} if failed else {}
        for metric, value in (
            ("tuning_objective", point.train_objective),
            ("heldout_objective", point.heldout_objective),
        ):
            yield row(**named, **status, step=point.step, metric=metric, value=value, unit="nat")
