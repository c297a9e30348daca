"""How the variance grows with the size of the latent variable."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..rows.wide import PANELS, at_swept_samples, family, measured, without_negligible
from .scaling import draw_against
from .style import themed
from .variance import METRIC


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against D at one S, log–log, for the problems that were measured at more than one D."""
    points, zero = without_negligible(measured(rows, "variance", [METRIC]), METRIC)
    points = points.assign(problem=points["problem"].map(family))
    return draw_against(
        rows,
        at_swept_samples(points, "latent_dim"),
        zero,
        "latent_dim",
        [column for column in PANELS if column != "latent_dim"] + ["num_samples"],
        "Variance of the gradient against the size of the latent variable",
        "latent dimension, D",
    )
