"""Which estimators can be used on a problem, at which S, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import catalogue
from ...estimators.support import objective_of, refusal
from ...estimators.text import one_line
from ..problems.arguments import shown
from ..problems.forward_checks import checked_eta, posterior_and_target
from ..problems.placement import duplicate
from ..problems.point import resolve_estimator
from ..problems.protocol import Problem
from ..problems.specifications import specifications
from .rank import same_at_every_s
from .spellings import same_estimator

SAMPLED = "kl=sampled"  #: the parameter of most that refuse a posterior without a closed-form KL


@dataclass(frozen=True)
class Candidate:
    """An estimator that can be used.

    Attributes:
        label: what results call it.
        build: makes one in its initial state.
        sizes: S to try, those that it supports of those asked for.
        objective: whose gradient it estimates.
    """

    label: str
    build: Callable[[], Estimator]
    sizes: tuple[int, ...]
    objective: str


class LeftOut(NamedTuple):
    """An estimator that was not ranked, and why in one line."""

    label: str
    reason: str


def find_candidates(
    problem: Problem,
    x: Tensor,
    estimators: Sequence[Estimator | str] | None,
    num_samples: Sequence[int],
) -> tuple[list[Candidate], list[LeftOut]]:
    """What can be measured: of the whole catalogue where ``estimators`` is None.

    Of the catalogue, what needs a closed-form KL that there is not is tried with a sampled one.

    Raises:
        UsageError: an estimator that was asked for does not exist or supports nothing of what was asked; or
            nothing is left.
    """
    given = list(catalogue()) if estimators is None else _expanded(estimators)
    q, target = posterior_and_target(problem, x, checked_eta(problem, x))
    found: list[Candidate] = []
    left_out: list[LeftOut] = []
    spelled: list[Candidate] = []  # instances may hold what was trained
    for one in given:
        candidate = _candidate(one, q, target, num_samples)
        if isinstance(candidate, LeftOut) and estimators is None and SAMPLED in candidate.reason:
            sampled = _candidate(f"{one}[{SAMPLED}]", q, target, num_samples)
            candidate = (
                sampled if isinstance(sampled, Candidate) else LeftOut(candidate.label, sampled.reason)
            )
        if isinstance(candidate, Candidate):
            twin = _twin(candidate, spelled) if isinstance(one, str) else None
            spelled += [candidate] if isinstance(one, str) and twin is None else []
            if twin is None:
                found.append(candidate)
            else:
                left_out.append(LeftOut(candidate.label, f"the same as {twin.label}, measured once"))
        elif estimators is None:
            left_out.append(candidate)
        else:
            raise UsageError(f"{candidate.label} cannot be used here: {candidate.reason}")
    if not found:
        raise UsageError(f"no estimator can be used here: {left_out[0].label}: {left_out[0].reason}")
    return found, left_out


def _twin(candidate: Candidate, found: Sequence[Candidate]) -> Candidate | None:
    """That of those found which is the same estimator spelled otherwise."""
    estimator = candidate.build()
    return next((one for one in found if same_estimator(estimator, one.build())), None)


def _expanded(estimators: Sequence[Estimator | str]) -> list[Estimator | str]:
    if isinstance(estimators, str | bytes) or not isinstance(estimators, Sequence) or not estimators:
        raise UsageError(f"estimators must be a list of one or more, not {shown(estimators)}")
    for instance in estimators:
        if not isinstance(instance, str):
            resolve_estimator(instance)
    instances = [e for e in estimators if not isinstance(e, str)]
    return [*instances, *specifications([e for e in estimators if isinstance(e, str)], "estimator")]


def _candidate(
    given: Estimator | str, q: Distribution, target: Target, num_samples: Sequence[int]
) -> Candidate | LeftOut:
    label = given if isinstance(given, str) else given.label
    try:
        estimator = resolve_estimator(given)
        reasons = {s: refusal(estimator, q, target, s) for s in num_samples}
    except UsageError as error:
        if not isinstance(given, str) or given not in catalogue():
            raise
        return LeftOut(label, str(error))
    except Exception as error:  # a plugin may raise anything
        return LeftOut(label, f"{type(error).__name__}: {one_line(error)}")
    sizes = tuple(s for s, reason in reasons.items() if reason is None)
    if not sizes:
        return LeftOut(estimator.label, str(reasons[max(reasons)]))
    if estimator.deterministic:
        sizes = sizes[:1]
    elif not same_at_every_s(estimator.objective) and len(sizes) > 1:
        sizes = tuple(s for s in sizes if s > 1)  # a bound of one sample is the ELBO
    return Candidate(
        estimator.label, partial(resolve_estimator, given), sizes, objective_of(estimator, target)
    )


def workspace(problem: Problem) -> Problem:
    """A copy whose gradients and modes may be used."""
    copied = duplicate(problem)
    for side in (copied.encoder, copied.decoder):
        for parameter in side.parameters():
            parameter.grad = None
    return copied
