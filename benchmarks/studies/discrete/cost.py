"""What a gradient costs: processor time, of all estimators in turns."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .runs import AtEqualEvaluations

if TYPE_CHECKING:
    from ...advice.timer import Timer
    from ...cases.base import Case
    from ...cases.variance import VarianceSettings


def measure_costs(options: AtEqualEvaluations, folder: Path, turns: int) -> None:
    """Time a training-step gradient of every case of the options, and write the rows into a folder.

    It is the time of one thread on a processor, which other work beside it lengthens little, for a block of
    each case in every turn, in random order.

    Args:
        options: whose cases are timed at the initialization.
        folder: gets ``rows.parquet`` and ``environment.json``.
        turns: blocks of each.
    """
    import torch

    from ...gradients import seeded
    from ...statistics.timings import timing_interval
    from ...store.atomic import write_atomically
    from ...store.environment import describe_environment
    from ...store.table import write_table

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cases, order = options.grid(), random.Random(0)
    try:
        with seeded(options.seed, torch.device("cpu")):
            timers = [_timer(case) for case in cases]
            blocks: list[list[float]] = [[] for _ in cases]
            for _ in range(turns):
                for index in order.sample(range(len(cases)), len(cases)):
                    blocks[index].append(sum(timers[index].turn()) / 2)
    finally:
        torch.set_num_threads(threads)
    rows = []
    for case, times in zip(cases, blocks, strict=True):
        seconds, low, high = timing_interval(times)
        rows.append(
            case.row(metric="seconds", value=seconds, ci_low=low, ci_high=high, n=turns, unit="s")
            | {"run": folder.name}
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(rows, folder / "rows.parquet")
    described = json.dumps(describe_environment("cpu") | {"case_threads": 1}, indent=2)
    write_atomically(folder / "environment.json", described + "\n")


def _timer(case: Case[VarianceSettings]) -> Timer:
    from ....estimators.plugins.registry import create_under
    from ...advice.timer import Timer
    from ...gradients import prepare
    from ...problems.point import placed

    problem, x = placed(
        case.problem, batch_size=case.batch_size, seed=case.seed, device=case.device, dtype=case.dtype
    )
    estimator = create_under(case.seed, case.estimator)
    prepare(problem, estimator, x, case.num_samples, warmup=0)
    return Timer(problem, estimator, x, case.num_samples, clock=time.thread_time)
