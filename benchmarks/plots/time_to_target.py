"""How many runs have reached a target, along training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.training_curves import REACH, reach_curves
from .curves import draw_curves
from .style import themed


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """One less the Kaplan–Meier estimate of the runs that are not there yet, against training steps."""
    notes = [
        "Targets are what the trials chosen in tuning have reached, over estimators, or those asked for.",
        "A run that ends or diverges before the target never reaches it here.",
    ]
    return draw_curves(reach_curves(rows), REACH, "Time to target", notes)
