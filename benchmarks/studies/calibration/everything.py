"""How often everything else that is printed with an interval holds its truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import repeat

import numpy as np
import torch

from ...seeds import hashed
from .outcome import Coverage, judge
from .quantities import choice, ratios, runs, shares, signal
from .quantities.base import Found, Quantities

#: What draws the cases; one of a kind of its own is a module here, with ``cases`` and ``quick``.
SOURCES = (signal, choice, ratios, shares, runs)


def quantities(quick: bool = False) -> list[Quantities]:
    """All cases, or one of each source that takes no model."""
    if quick:
        return [source.quick() for source in (signal, choice, ratios, runs)]
    return [case for source in SOURCES for case in source.cases()]


def everything(
    repetitions: int, pool: Executor, jobs: int, seed: int = 0, quick: bool = False
) -> Iterator[Coverage]:
    """One line a quantity and case."""
    for index, case in enumerate(quantities(quick)):
        count = max(math.ceil(repetitions * case.share), 2)
        size = math.ceil(count / (2 * jobs))
        parts = [range(i, min(i + size, count)) for i in range(0, count, size)]
        done = list(pool.map(_repetitions, repeat((index, hashed(seed, index))), repeat(quick), parts))
        for name in case.truths:
            yield judge(name, case, [one[name] for part in done for one in part if name in one], count)


_known: dict[bool, list[Quantities]] = {}


def _repetitions(which: tuple[int, int], quick: bool, numbers: Sequence[int]) -> list[dict[str, Found]]:
    """One process's share of a case."""
    torch.set_num_threads(1)
    if quick not in _known:  # truths by quadrature and simulation take seconds
        _known[quick] = quantities(quick)
    index, seed = which
    case = _known[quick][index]
    return [dict(case.draw(np.random.default_rng((seed, number)))) for number in numbers]
