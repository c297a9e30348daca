"""That an estimate does not depend on the shape of the batch it is part of.

Each function takes a `Trial` and raises AssertionError with one line of reason. What they compare must agree
to rounding: the same data in batches of other shapes, under the same random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from .replay import NoCounterpart, Part, draws_alike, recorded, replayed
from .toy_problems import ToyProblem
from .trial import Outcome, Trial, outcome_parts, relative_difference, require_support, seeded

_SHAPES = (((6,), (1, 6), (6, 1), (2, 3), (3, 2)), ((4,), (2, 2)), ((1,), (1, 1)))
_SHAPES_OF_THE_SAME_DATA = (((3,), (1, 3)), ((4,), (1, 4)), ((1,), (1, 1)))
_REPLICATES, _DATA = 5, 2
_LARGEST = 257  # more by one than what some would cut a batch at
_SMALLER = ((3, 0), (1, 256), (2, 7), (4, 252), (9, 16), (33, 40))  # size of a batch, and where it starts


def shape_of_batch(trial: Trial) -> None:
    """The same entries in a batch of another shape have the same estimates, entry by entry, to rounding.

    Batches (6,), (1, 6), (6, 1), (2, 3) and (3, 2), and (4,) and (2, 2), under one seed, at every S, in both
    modes: they hold the same random numbers in the same order. Where two of them draw otherwise (replicate by
    replicate, say) only (B,) and (1, B) are compared, as with ``couples_batch``, for which the last dimension
    is the batch.
    Further a replicate of (5, 2) is drawn again alone, from its own part of the numbers, as far as that part
    can be told.
    """
    estimator = trial.warm
    sets = _SHAPES_OF_THE_SAME_DATA if estimator.couples_batch else _SHAPES
    for training, num_samples in product((False, True), trial.sizes):
        with trial.modes(training):
            for first, *others in sets:
                problems = {shape: _entries(trial, shape) for shape in (first, *others)}
                reference = seeded(estimator, problems[first], num_samples)
                for shape in others:
                    outcome = seeded(estimator, problems[shape], num_samples)
                    name = _difference(reference, outcome)
                    if name and draws_alike(estimator, (problems[first], problems[shape]), num_samples):
                        where = _where(num_samples, training)
                        raise AssertionError(
                            f"the {name} of the same entries is another in a batch of shape {shape} "
                            f"than of shape {first} ({where})"
                        )
            _one_replicate(trial, num_samples, training)


def size_of_batch(trial: Trial) -> None:
    """A datum's estimate is the same in a batch of 257 and in one of 1, 2, 3, 4, 9 and 33, to rounding.

    From the same random numbers, of which a smaller batch is given its part, at every S and in both modes.
    Nothing is compared where that part cannot be told by its shape.
    """
    estimator = trial.warm
    sizes = trial.sizes[:1] if trial.deterministic else trial.sizes
    for training, num_samples in product((False, True), sizes):
        with trial.modes(training):
            largest = _some(trial, 0, _LARGEST)
            require_support(estimator, largest, largest.target, num_samples)
            try:
                whole, drawn = recorded(estimator, largest, num_samples)
            except NoCounterpart:
                return
            for kept, start in _SMALLER:
                problem = _some(trial, start, kept)
                if estimator.supports(problem.q, problem.target, num_samples) is not None:
                    continue
                name = ""
                for part in _parts(_LARGEST, start, kept, num_samples):
                    try:
                        outcome = replayed(estimator, problem, num_samples, drawn, part)
                    except NoCounterpart:
                        continue
                    name = _difference(_narrow(whole, start, kept, -1), outcome)
                    if not name:
                        break
                if name:
                    where = _where(num_samples, training)
                    raise AssertionError(
                        f"the {name} of a datum is another in a batch of {kept} than of {_LARGEST} ({where})"
                    )


def _one_replicate(trial: Trial, num_samples: int, training: bool) -> None:
    data = tuple(range(_DATA))
    problem, alone = (trial.family.problem((lead,), data, learned=True) for lead in (_REPLICATES, 1))
    chosen = _REPLICATES - 2
    name = ""
    try:
        whole, drawn = recorded(trial.warm, problem, num_samples)
    except NoCounterpart:
        return
    for part in _parts(_REPLICATES, chosen, 1, num_samples):
        try:
            outcome = replayed(trial.warm, alone, num_samples, drawn, part)
        except NoCounterpart:
            continue
        name = _difference(_narrow(whole, chosen, 1, 0), outcome)
        if not name:
            return
    if name:
        shape, where = (_REPLICATES, _DATA), _where(num_samples, training)
        raise AssertionError(
            f"the {name} of one replicate is another in a batch of shape {shape} than alone ({where})"
        )


def _parts(size: int, start: int, kept: int, num_samples: int) -> Iterator[Part]:
    """Where the numbers of a part of the batch may lie; rows flattened with the samples come second."""
    for before in sorted({1, num_samples}):
        yield Part(size, start, kept, before)


def _entries(trial: Trial, shape: tuple[int, ...]) -> ToyProblem:
    """A batch of entries of one datum, or of all where the batch is coupled, each with an η of its own."""
    size = shape[-1]
    data = tuple(i % 3 for i in range(size)) if trial.warm.couples_batch else (0,) * size
    problem = trial.family.problem(shape[:-1], data, learned=True)
    with torch.no_grad():
        own = torch.arange(problem.eta[..., 0].numel(), dtype=problem.eta.dtype)
        problem.eta.add_(0.05 * own.reshape(*shape, 1))
    return problem


def _some(trial: Trial, start: int, size: int) -> ToyProblem:
    return trial.family.problem((), tuple(i % 3 for i in range(start, start + size)), learned=True)


def _narrow(outcome: Outcome, start: int, kept: int, dimension: int) -> Outcome:
    """The part of an outcome along a dimension of the batch, 0 or its last."""
    estimate, eta_grad, theta_grad = outcome
    along = dimension % (eta_grad.dim() - 1)
    surrogate, value = (x.narrow(along, start, kept) for x in (estimate.surrogate, estimate.value))
    narrowed = (part.narrow(along, start, kept) for part in (eta_grad, theta_grad))
    return Outcome(estimate._replace(surrogate=surrogate, value=value), *narrowed)


# What a batch's size changes is gross; what is summed in float32 inside may differ by rounding.
_SAME = 1e-5


def _difference(first: Outcome, second: Outcome) -> str:
    """The first part in which two outcomes differ, whatever the shapes of their batches; "" if they agree."""
    for outcome in (first, second):
        for name in ("surrogate", "value"):
            if getattr(outcome.estimate, name).shape != outcome.eta_grad.shape[:-1]:
                return f"shape of {name}"
    for name, one, two in outcome_parts(first, second):
        if one.numel() != two.numel() or relative_difference(one.flatten(), two.flatten()) > _SAME:
            return name
    return ""


def _where(num_samples: int, training: bool) -> str:
    return f"S = {num_samples}, in {'training' if training else 'eval'} mode"
