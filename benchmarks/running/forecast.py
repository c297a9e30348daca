"""About how long cases will take: from a quick pilot of each kind of them, run here and now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import median
from typing import NamedTuple

from ...estimators.plugins.specification import parse
from ..cases.grid import Case
from ..problems.placement import check_dtype, default_batch_size, place
from ..problems.protocol import Problem
from ..problems.registry import load_problem
from ..training.train import train
from ..variance.measure import measure_variance
from ..variance.result import VarianceResult
from .executors.measure import computing_threads

#: Seconds after which no new pilot is begun.
PILOT_SECONDS = 10.0
_FEW = 8  # replicates
_LONG_ENOUGH = 0.3  # seconds, for a pilot to tell what a replicate takes
_STEPS = 20  # of training: as many evaluations as a whole run has
_COST = 0.55  # seconds that timing a gradient takes, warm-up included
_Z = 1.96


@dataclass(frozen=True)
class Pilot:
    """What was measured of one case of a kind.

    Attributes:
        case: which one.
        fixed: seconds that do not depend on the amount of work.
        unit: seconds a replicate, or a training step.
        relative_variance: of the replicates' contributions to the variance, (SE √R / V̂)².
    """

    case: Case
    fixed: float
    unit: float
    relative_variance: float = 0.0

    def seconds(self, case: Case) -> float:
        """Of another case of this kind, S and B taken to cost in proportion."""
        unit = self.unit * _size(case) / _size(self.case)
        settings = case.settings
        if case.benchmark == "variance":
            replicates = settings["replicates"]
            if settings.get("precision") is not None:
                replicates = max(2, self.relative_variance * (_Z / settings["precision"]) ** 2)
            return self.fixed + unit * replicates + _COST
        rates = len(settings["learning_rates"])
        tuned = rates if rates > 1 else 0
        trainings = settings["seeds"] + tuned
        steps = settings["seeds"] * settings["steps"] + tuned * settings["tuning_steps"]
        return trainings * self.fixed + steps * unit


class Guess(NamedTuple):
    """Seconds of a case: from a pilot of its own kind, or from those of other estimators."""

    seconds: float
    own: bool = True


def estimate_seconds(cases: Sequence[Case], threads: int) -> dict[str, Guess]:
    """Seconds of each case by its id; those about which nothing is known are missing.

    Counted is the measuring itself: neither the training of checkpoints nor the reference for the bias,
    which the estimators at one point share.

    Args:
        cases: of variance, convergence, and of certification under a budget; others are unknown.
        threads: that a case computes with.
    """
    kinds: dict[tuple[str, str, str], list[Case]] = {}
    found = {}
    for case in cases:
        if case.benchmark in ("variance", "convergence"):
            kinds.setdefault(_kind(case), []).append(case)
        elif case.problem and case.settings.get("seconds") is not None:
            found[case.id] = Guess(float(case.settings["seconds"]))
    pilots = _pilots([alike[0] for alike in kinds.values()], threads)
    for kind, alike in kinds.items():
        others = [pilot for other, pilot in pilots.items() if other[:2] == kind[:2]]
        for case in alike:
            if kind in pilots:
                found[case.id] = Guess(pilots[kind].seconds(case))
            elif others:
                found[case.id] = Guess(median(other.seconds(case) for other in others), own=False)
    return found


def _pilots(cases: Sequence[Case], threads: int) -> dict[tuple[str, str, str], Pilot]:
    """As many pilots as there is time for, of each benchmark and problem in turn."""
    queues: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        queues.setdefault(_kind(case)[:2], []).append(case)
    end = time.monotonic() + PILOT_SECONDS
    pilots = {}
    with computing_threads(threads):
        for case in filter(None, chain.from_iterable(zip_longest(*queues.values()))):
            if time.monotonic() >= end:
                break
            pilot = _pilot(case)
            if pilot is not None:
                pilots[_kind(case)] = pilot
    return pilots


def _kind(case: Case) -> tuple[str, str, str]:
    """What takes alike, but for its size: one latent dimension or another is taken to be the same."""
    return case.benchmark, parse(case.problem).name, case.estimator


def _size(case: Case) -> int:
    return case.num_samples * (case.batch_size or default_batch_size(load_problem(case.problem)))


def _pilot(case: Case) -> Pilot | None:
    """The pilot of a case; None where that goes wrong, as the case itself will, with its reason."""
    try:
        problem = place(load_problem(case.problem), device=case.device, dtype=check_dtype(case.dtype))
        return _variance(case, problem) if case.benchmark == "variance" else _training(case, problem)
    except Exception:
        return None


def _variance(case: Case, problem: Problem) -> Pilot:
    def run(replicates: int) -> tuple[float, VarianceResult]:
        began = time.perf_counter()
        result = measure_variance(
            problem,
            case.estimator,
            num_samples=case.num_samples,
            replicates=replicates,
            route=case.settings["route"],
            chunk=case.settings.get("chunk"),
            seed=case.seed,
            batch_size=case.batch_size,
        )
        return time.perf_counter() - began, result

    run(2)  # warms up
    few, result = run(_FEW)
    more, replicates = few, _FEW
    while more - few < _LONG_ENOUGH and replicates < case.settings["replicates"]:
        replicates *= 8
        more, result = run(replicates)
    unit = max(0.0, (more - few) / (replicates - _FEW)) if replicates > _FEW else few / _FEW
    moments = result.moments[""]
    relative = moments.stderr / moments.mean if moments.mean > 0 else 0.0
    return Pilot(case, max(0.0, few - unit * _FEW), unit, relative**2 * result.replicates)


def _training(case: Case, problem: Problem) -> Pilot:
    began = time.perf_counter()
    result = train(
        problem,
        case.estimator,
        steps=_STEPS,
        num_samples=case.num_samples,
        batch_size=case.batch_size,
        optimizer=case.settings["optimizer"],
        learning_rate=case.settings["learning_rates"][0],
        importance_samples=0,
        seed=case.seed,
    )
    total = time.perf_counter() - began
    training = result.history[-1].seconds
    return Pilot(case, total - training, training / _STEPS)
