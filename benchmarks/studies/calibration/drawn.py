"""What the suite makes of replicates of a gradient ĝ that were drawn here, without a model.

Shapes: R replicates, ``phi`` coordinates.
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from ...linalg import square_trace
from ...statistics.moments import Moments
from ...variance.moments import Shares, bessel, central_moments
from ...variance.signal import Sample, Signal, measure_signal


def measured(estimates: Float64[Tensor, "R phi"]) -> tuple[Moments, Signal]:
    """Total variance and signal of R replicates of one datum, by the code that measurements go through."""
    n, mean = len(estimates), estimates.mean(0)
    centred = estimates - mean
    u = centred.square().sum(-1, keepdim=True).T
    if len(mean) <= n:
        tau = square_trace((centred.T @ centred / (n - 1)).unsqueeze(0))
    else:
        tau = ((centred @ centred.T).square().sum() / (n - 1) ** 2).reshape(1)
    total = Shares(u.mean(-1) * bessel(n), *central_moments(u), tau).summarize(n)
    of_u = (u - u.mean())[0]
    sample = Sample(
        estimates[:256],
        lambda w: float((estimates @ w).var()),
        lambda w: float(((centred @ w) * of_u).sum() / (n - 1)),
        lambda w: ((estimates @ w).unsqueeze(0), u),
    )
    return total, measure_signal(mean, sample, total)
