"""Properties of an estimator's randomness and state: what a seed fixes and what a call may move.

Each function takes a `Trial` and raises AssertionError with one line of reason.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Estimator
from .hidden_state import hidden_values
from .trial import SEED, Trial, evaluate, expect, expect_same, relative_difference, seeded, train_step

_REPLICATES = 32  # that the gradients of discrete draws are all equal by chance is ruled out


def reproducible(trial: Trial) -> None:
    """Two calls under one seed agree exactly."""
    problem = trial.family.problem()
    estimator = trial.fresh(problem)
    outcomes = [seeded(estimator, problem, trial.num_samples) for _ in range(2)]
    expect_same(outcomes, "a second call under the same torch.manual_seed changes", tolerance=0)


def fresh_draws(trial: Trial) -> None:
    """Successive calls draw anew and leave the global generator's state their own.

    An estimator that returns the same estimate every time passes if that is the exact gradient.
    """
    problem = trial.family.problem((_REPLICATES,), learned=True)
    estimator = trial.fresh()
    calls = [evaluate(estimator, problem, trial.num_samples) for _ in range(4)]
    if all(torch.equal(call.eta_grad, calls[0].eta_grad) for call in calls):
        exact = problem.exact().eta_grad
        wrong = estimator.objective != "elbo" or relative_difference(calls[0].eta_grad, exact) > 1e-6
        expect(not wrong, "successive calls return the same estimate, and it is not the exact gradient")
    after = []
    for seed in (SEED, SEED + 1):
        seeded(estimator, problem, trial.num_samples, seed=seed)
        after.append(torch.get_rng_state())
    expect(not torch.equal(*after), "forward seeds the global random generator")


def pure_forward(trial: Trial) -> None:
    """Forward leaves parameters, buffers and attributes as they are, in train and in eval mode.

    From the second call on, before which something may be kept for all that follow, it leaves alone what
    lies outside the instance too: see `hidden_values`.
    """
    problem = trial.family.problem()
    for training in (True, False):
        estimator = trial.fresh(problem).train(training)
        before = _state(estimator)
        seeded(estimator, problem, trial.num_samples)
        _unchanged(before, _state(estimator), "forward changed")
        before = _hidden(estimator)
        seeded(estimator, problem, trial.num_samples, seed=SEED + 1)
        _unchanged(before, _hidden(estimator), "forward changed")


def init_once(trial: Trial) -> None:
    """A second `init` leaves the state alone, new or trained."""
    problem = trial.family.problem()
    for estimator in (trial.fresh(problem), trial.warm):
        before = _state(estimator)
        estimator.init(problem.q, problem.target)
        _unchanged(before, _state(estimator), "a second init changed")


def state_dict(trial: Trial) -> None:
    """A fresh estimator, after `init` and ``load_state_dict``, gives the trained one's estimates."""
    problem = trial.family.problem()
    loaded = trial.fresh(problem)
    saved = trial.warm.state_dict()
    # An update may have widened a buffer; loading would round it, which is no fault of the state_dict.
    for name, buffer in loaded.named_buffers():
        if name in saved:
            buffer.data = buffer.data.to(saved[name].dtype)
    loaded.load_state_dict(saved)
    outcomes = [seeded(estimator, problem, trial.num_samples) for estimator in (trial.warm, loaded)]
    expect_same(outcomes, "saving and loading the state_dict changes")


def deepcopy(trial: Trial) -> None:
    """A deep copy gives the same estimates, and its updates leave the original alone."""
    problem = trial.family.problem()
    original = trial.fresh(problem).train()
    train_step(original, seeded(original, problem, trial.num_samples).estimate)
    duplicate = copy.deepcopy(original)
    outcomes = [seeded(estimator, problem, trial.num_samples) for estimator in (original, duplicate)]
    expect_same(outcomes, "deepcopy changes")
    before = _state(original)
    train_step(duplicate, outcomes[1].estimate)
    _unchanged(before, _state(original), "an update of a deep copy changed the original's")


def _state(estimator: Estimator) -> dict[str, Any]:
    """Parameters, buffers and attributes by name, copied, so that a later change shows."""
    state: dict[str, Any] = dict(estimator.named_parameters()) | dict(estimator.named_buffers())
    every_module_has = vars(nn.Module()).keys()
    for place, module in estimator.named_modules():
        for name, value in vars(module).items():
            if name not in every_module_has:
                state[f"{place}.{name}".lstrip(".")] = value
    return {name: _frozen(value) for name, value in state.items()}


def _hidden(estimator: Estimator) -> dict[str, Any]:
    return {name: _frozen(value) for name, value in hidden_values(estimator).items()}


def _frozen(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    try:
        return pickle.dumps(value)
    except Exception:  # what cannot be pickled is told apart by identity only
        return id(value)


def _unchanged(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    names = {**before, **after}
    changed = [name for name in names if not _equal(before.get(name), after.get(name))]
    expect(not changed, f"{what} {', '.join(changed)}")


def _equal(one: object, two: object) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        # NaN stands for "not yet set" in some buffers.
        return one.shape == two.shape and bool(((one == two) | ((one != one) & (two != two))).all())
    return type(one) is type(two) and one == two
