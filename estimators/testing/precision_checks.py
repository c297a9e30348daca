"""That an estimate in float32 is the one in float64, but for rounding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from ..base import Estimator
from .random_operations import RandomOperations
from .replay import NoCounterpart, Replay, Same, recorded, replayed
from .trial import Outcome, Trial, expect, outcome_parts, with_likelihood

_REPLICATES = 32
_STEPS = 3
_COSTS = (0.0, -500.0)  # added to log p(x|z): nats of a toy, and of a data set of images
_ROUNDINGS = 200.0


def float32(trial: Trial) -> None:
    """From the same random numbers an estimate in float32 is that in float64, to rounding of float32.

    Entry by entry, at every S, in both modes, with log p(x|z) of order 1 and of order 500. Rounding is held
    against the size of the cost times that of the score: a difference of large costs keeps their error. One
    entry in 64 may be another: a random number may fall between the two roundings of a threshold.
    """
    try:
        estimator, precise = _trained_alike(trial)
    except NoCounterpart:
        return
    types = torch.float32, torch.float64
    lead = 1 if trial.deterministic else _REPLICATES
    narrow, wide = (trial.family.problem((lead,), dtype=kind, learned=True) for kind in types)
    score = _size_of_score(trial)
    for training, num_samples, cost in product((False, True), trial.sizes, _COSTS):
        for each in (estimator, precise):
            each.train(training)
        low, high = (with_likelihood(p.target, _raised(cost)) for p in (narrow, wide))
        try:
            single, drawn = recorded(estimator, narrow, num_samples, low)
            double = replayed(precise, wide, num_samples, drawn, Same(), high)
        except NoCounterpart:
            return
        mode = "training" if training else "eval"
        where = f"with log p(x|z) of order {max(1, abs(cost)):.0f} (S = {num_samples}, in {mode} mode)"
        unit = _ROUNDINGS * torch.finfo(torch.float32).eps * (1 + abs(cost))
        for name, off in _distances(single, double, score):
            odd = int((off > unit).sum())
            expect(
                odd <= off.numel() // 64,
                f"the {name} in float32 is off that in float64 by {float(off.max()):.2g} {where}",
            )


def _trained_alike(trial: Trial) -> tuple[Estimator, Estimator]:
    """Estimators of either type after some training steps of its own, from the same random numbers.

    Raises:
        NoCounterpart: these differ, or are not seen.
    """
    with RandomOperations() as seen:
        single = trial.warm_in(torch.float32, _STEPS)
    if seen.unseen:
        raise NoCounterpart
    with Replay(seen.drawn, Same()) as again:
        double = trial.warm_in(torch.float64, _STEPS)
    again.finish()
    return single, double


def _raised(cost: float) -> Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]:
    return lambda f: lambda z: f(z) + cost


def _size_of_score(trial: Trial) -> float:
    """The largest derivative of log q(z) in η among some draws, 1 at least."""
    q = (problem := trial.family.problem((_REPLICATES,))).q
    z = q.sample(torch.Size((8,)))
    (score,) = torch.autograd.grad(q.log_prob(z).sum(), problem.eta)
    return max(1.0, float(score.abs().max()))


def _distances(single: Outcome, double: Outcome, score: float) -> list[tuple[str, Tensor]]:
    """Part by part, the distance of every entry of the batch, against the largest entry or the score."""
    found = []
    for name, one, two in outcome_parts(single, double):
        if two.numel():
            scale = max(float(two.detach().abs().max()), score)
            off = (one.detach().double() - two.detach()).abs().reshape(*double.eta_grad.shape[:-1], -1)
            found.append((name, off.amax(-1) / scale))
    return found
