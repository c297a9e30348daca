"""The repetitions of a cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ....estimators.plugins.registry import create
from ...variance.measure import measure_variance
from .cells import Cell
from .problems import placed


def measure(cell: Cell, seeds: Sequence[int]) -> list[tuple[float, float, float, int, int]]:
    """Estimate, interval, replicates and replicates needed (0: enough) of one measurement a seed."""
    torch.set_num_threads(1)
    problem, x = placed(cell)
    estimator, found = create(cell.estimator), []
    for seed in seeds:
        v = measure_variance(
            problem,
            estimator,
            x,
            replicates=cell.replicates or 2,
            precision=cell.precision,
            seed=seed,
            details=False,
        )
        found.append((v.total, v.ci_low, v.ci_high, v.replicates, v.moments[""].needed or 0))
    return found
