"""What each estimator makes of its evaluations of the decoder."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.wide import PANELS, measured, without_negligible
from .scaling import draw_against
from .style import themed
from .variance import METRIC


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against evaluations of log p(x|z), log–log, a point for each S.

    On a vertical line all evaluate the decoder equally often. None where each evaluates it S times:
    that figure is the one against S.
    """
    points = measured(rows, "variance", [METRIC, "evaluations"])
    points, zero = without_negligible(points[points["evaluations"] > 0], METRIC)
    if (points["evaluations"] == points["num_samples"]).all():
        return None
    return draw_against(
        rows,
        points,
        zero,
        "evaluations",
        PANELS,
        "Variance of the gradient against evaluations of the decoder",
        "evaluations of log p(x|z)",
        guide="slope −1: equal variance × evaluations",
    )
