"""The suite's own entry: `measure_variance`, as a user calls it."""

from __future__ import annotations

import time
from typing import Any

from ...seeds import derived
from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .shared import Shared, along, flatten


class SuitePeer:
    """Measures to a precision in one call.

    Args:
        shared: the case.
        method: "measure_variance".
    """

    def __init__(self, shared: Shared, method: str) -> None:
        self.shared = shared
        self.timed(0.3, 0)  # nothing cold is timed

    def timed(self, precision: float, seed: int) -> dict[str, Any]:
        """Seconds of a full call that ends at ``precision``, its set-up included.

        It is asked for what a loop gives too: the total and the mean, at a baseline already warmed up.
        """
        begin = time.perf_counter()
        result = self._measure(self.shared.estimator, warmup=0, precision=precision, seed=seed, details=False)
        return {"seconds": time.perf_counter() - begin, "replicates": result.replicates}

    def moments(self, replicates: int, seed: int) -> dict[str, Any]:
        """Total variance and mean deviation from the reference at the shared state, in two halves."""
        return {"halves": [self._half(replicates // 2, derived(seed, "half", number)) for number in range(2)]}

    def _half(self, replicates: int, seed: int) -> dict[str, Any]:
        shared = self.shared
        result = self._measure(shared.estimator, warmup=0, replicates=replicates, seed=seed)
        names = [name for name, _ in shared.problem.encoder.named_parameters()]
        deviation = flatten(result.mean[name] for name in names) - shared.reference
        stderr = (flatten(result.per_parameter[name] for name in names) / result.replicates).sqrt()
        directions = along(result, shared.problem, shared.x, shared.directions)
        return {
            "replicates": result.replicates,
            "total": result.total,
            "low": result.ci_low,
            "high": result.ci_high,
            "deviation": [*deviation.tolist(), *(shared.directions @ deviation).tolist()],
            "stderr": [*stderr.tolist(), *directions.tolist()],
        }

    def _measure(self, estimator: Any, **options: Any) -> VarianceResult:
        shared = self.shared
        return measure_variance(
            shared.problem, estimator, shared.x, num_samples=shared.num_samples, **options
        )
