"""Over workloads and targets: how often each estimator's time to target is within a factor of the best."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.training_curves import PROFILE, instances, profile_curves
from .curves import draw_curves
from .style import themed


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """ρ(τ), the share of workloads and targets on which the median steps are within τ times the least."""
    notes = [
        f"{instances(rows)} instances, a workload with a target each; height at τ = 1: share on which the "
        "estimator is the quickest.",
        "Bands: 95% by drawing the seeds again, the same for all estimators.",
    ]
    return draw_curves(profile_curves(rows), PROFILE, "Performance profiles of training", notes)
