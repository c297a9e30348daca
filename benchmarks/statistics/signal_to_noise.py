"""The signal-to-noise ratio of a gradient estimate."""

from __future__ import annotations

import math


def signal_to_noise(squared_norm: float, variance: float, n: int) -> float:
    """‖E ĝ‖ / √tr Cov(ĝ), debiased: the mean of n replicates carries noise of squared norm variance/n.

    Without the correction pure noise would show a ratio of 1/√n.
    """
    if not variance > 0:
        return math.inf if squared_norm > 0 else 0.0
    return math.sqrt(max(squared_norm - variance / n, 0.0) / variance)
