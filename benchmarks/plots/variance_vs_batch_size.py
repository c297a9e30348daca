"""How the variance falls with the number of data in a batch."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.wide import PANELS, at_swept_samples, measured, without_negligible
from .scaling import draw_against
from .style import themed
from .variance import METRIC


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against B at one S, log–log, for the problems of which more than one B was measured."""
    points, zero = without_negligible(measured(rows, "variance", [METRIC]), METRIC)
    return draw_against(
        rows,
        at_swept_samples(points, "batch_size"),
        zero,
        "batch_size",
        [column for column in PANELS if column != "batch_size"] + ["num_samples"],
        "Variance of the gradient against the batch size",
        "data a batch, B",
        guide="slope −1: variance ∝ 1/B",
    )
