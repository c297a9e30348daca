"""Whether one estimate fits into the budget, told from a smaller one before it is tried."""

from __future__ import annotations

import time

import torch

from ...estimators.text import one_line
from ..gradients import count_evaluations, eta_gradients, frozen, make_ready
from ..problems.forward_checks import posterior_and_target
from .candidates import Candidate
from .contender import Point

_SMALL = 1024  # S, or evaluations, that are tried without asking
_WIDE = 64  # coordinates of eta, with which evaluations may grow whatever S is
_ESTIMATES = 20  # that a first look takes, about
_MOST_NUMBERS = 2**31  # of S × B × D that are drawn at once


def why_too_slow(point: Point, candidate: Candidate, num_samples: int, seconds: float) -> str | None:
    """None, or why an estimate of so many samples cannot be looked at: by its size, or by a pilot.

    The pilot is at S = 256, cost being taken to be proportional to S, which is what it tends to; or, where S
    is small, at one datum, for what evaluates the target far more often than S times.

    Args:
        point: where.
        candidate: what.
        num_samples: S.
        seconds: of the whole budget.
    """
    if num_samples <= _SMALL:
        return _too_many_evaluations(point, candidate, num_samples, seconds)
    with torch.no_grad():
        eta = point.problem.encoder(point.x)
    if num_samples * eta.numel() > _MOST_NUMBERS:
        return f"S = {num_samples} is too large: {num_samples * eta.numel():.1e} numbers an estimate"
    estimator, pilot = candidate.build(), _SMALL // 4
    try:
        _, target = make_ready(point.problem, estimator, point.x, eta, pilot)
        with frozen(point.problem.decoder):
            eta_gradients(point.problem, estimator, target, eta, 1, pilot)
            begun = time.perf_counter()
            eta_gradients(point.problem, estimator, target, eta, 1, pilot)
            expected = (time.perf_counter() - begun) * num_samples / pilot
    except Exception as error:  # the look itself will tell, if it is not the pilot's S
        return None if num_samples < 2**20 else f"S = {num_samples}: a pilot failed: {one_line(error)}"
    if expected * _ESTIMATES <= seconds:
        return None
    return (
        f"S = {num_samples} takes about {expected:.1g} s an estimate, too long for a budget of {seconds:g} s"
    )


def _too_many_evaluations(point: Point, candidate: Candidate, num_samples: int, seconds: float) -> str | None:
    x = point.x[:1]
    try:
        with torch.no_grad():
            eta = point.problem.encoder(x)
        if eta.numel() < _WIDE:
            return None
        estimator = candidate.build()
        q, target = posterior_and_target(point.problem, x, eta)
        estimator.init(q, target)
        estimator.to(device=eta.device, dtype=eta.dtype)
        with frozen(point.problem.decoder):
            begun = time.perf_counter()
            evaluations = count_evaluations(point.problem, estimator, target, eta, num_samples)
            expected = (time.perf_counter() - begun) * len(point.x)
    except Exception:  # the look itself will tell, if it is not that there is but one datum
        return None
    if evaluations <= _SMALL or expected * _ESTIMATES <= seconds:
        return None
    return (
        f"S = {num_samples} takes {evaluations} evaluations of log p(x|z) a datum, about {expected:.1g} s an "
        f"estimate, too long for a budget of {seconds:g} s"
    )
