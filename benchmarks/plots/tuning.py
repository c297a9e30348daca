"""What the best of so many trials is worth."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.training_curves import BEST_OF, best_of_curves
from .curves import draw_curves
from .style import themed


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """The expected best objective of k random trials, on the data that rates are chosen by."""
    notes = [
        "Every estimator has the same trials; one that diverged counts as no training.",
        "Bands: 95% bootstrap intervals, too short above where all trials are taken together.",
    ]
    return draw_curves(best_of_curves(rows), BEST_OF, "Tuning: the best of k trials", notes)
