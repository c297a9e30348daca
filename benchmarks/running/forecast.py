"""About how long cases will take: from a quick pilot of each sort of them, run here and now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from statistics import median
from typing import NamedTuple

from ...estimators.plugins.specification import parse
from ..cases.base import AnyBenchmark, AnyCase, Pilot
from .threads import computing_threads

#: Seconds after which no new pilot is begun.
PILOT_SECONDS = 10.0

#: At most so many data a batch, of which the time of more is told.
_PILOT_DATA = 4096


class Guess(NamedTuple):
    """Seconds of a case: known or from a pilot of its own sort, or from those of other estimators."""

    seconds: float
    own: bool = True


class _Sort(NamedTuple):
    """What takes alike, but for its size: one latent dimension or another is taken to be the same."""

    benchmark: str
    problem: str
    estimator: str


def estimate_seconds(
    asked: Sequence[tuple[AnyBenchmark, Sequence[AnyCase]]], threads: int
) -> dict[str, Guess]:
    """Seconds of each case by its id; those about which nothing is known are missing.

    Counted is the measuring itself: neither the training of checkpoints nor what cases share
    (`Benchmark.shared_work`).

    Args:
        asked: each benchmark with those of its cases that are to be run.
        threads: that a case computes with.
    """
    sorts: dict[_Sort, list[AnyCase]] = {}
    found = {}
    for benchmark, cases in asked:
        for case in cases:
            seconds = benchmark.expected_seconds(case)
            if seconds is not None:
                found[case.id] = Guess(seconds)
            else:
                sorts.setdefault(_sort(case), []).append(case)
    pilots = _pilots([alike[0] for alike in sorts.values()], threads)
    for sort, alike in sorts.items():
        found |= {case.id: guess for case in alike if (guess := _guess(case, sort, pilots)) is not None}
    return found


def _guess(case: AnyCase, sort: _Sort, pilots: Mapping[_Sort, Pilot]) -> Guess | None:
    if sort in pilots:
        return Guess(pilots[sort].seconds(case))
    others = [pilot for other, pilot in pilots.items() if other[:2] == sort[:2]]
    return Guess(median(other.seconds(case) for other in others), own=False) if others else None


def _pilots(cases: Sequence[AnyCase], threads: int) -> dict[_Sort, Pilot]:
    """As many pilots as there is time for, of each benchmark and problem in turn."""
    queues: dict[tuple[str, str], list[AnyCase]] = {}
    for case in cases:
        queues.setdefault(_sort(case)[:2], []).append(case)
    pilots = {}
    with computing_threads(threads):
        end = time.monotonic() + PILOT_SECONDS
        for case in filter(None, chain.from_iterable(zip_longest(*queues.values()))):
            if time.monotonic() >= end:
                break
            pilot = _pilot(case)
            if pilot is not None:
                pilots[_sort(case)] = pilot
    return pilots


def _sort(case: AnyCase) -> _Sort:
    return _Sort(case.kind.name, case.problem and parse(case.problem).name, case.estimator)


def _pilot(case: AnyCase) -> Pilot | None:
    """The pilot of a case; None where that goes wrong, as the case itself will, with its reason."""
    try:
        return case.kind.pilot(replace(case, batch_size=min(case.batch_size or 0, _PILOT_DATA) or None))
    except Exception:
        return None
