"""How fast the variance falls with the number of samples S of an estimate."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.wide import PANELS, measured, without_negligible
from .scaling import draw_against
from .style import themed
from .variance import METRIC


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against S, log–log, for the problems of which more than one S was measured."""
    points, zero = without_negligible(measured(rows, "variance", [METRIC]), METRIC)
    return draw_against(
        rows,
        points,
        zero,
        "num_samples",
        PANELS,
        "Variance of the gradient against the number of samples",
        "samples an estimate, S",
        guide="slope −1: variance ∝ 1/S",
    )
