"""Whether rows are of one model and one batch at each point: others do not belong side by side."""

from __future__ import annotations

import pandas as pd

from ...estimators.errors import UsageError
from .text import clean, describe
from .wide import normalized

#: Column -> in which settings rows share it.
SAME = {
    "weights": ["benchmark", "problem", "latent_dim", "dtype", "seed", "step"],
    "batch": ["benchmark", "problem", "latent_dim", "dtype", "seed", "step", "batch_size"],
}
_WHAT = {"weights": "models (weights {})", "batch": "data (batches {})"}


def check_one_model(rows: pd.DataFrame) -> None:
    """Refuse rows of what is called one point and has different weights, or another batch.

    Rows without fingerprints, of earlier versions or of what never ran, go with any.

    Raises:
        UsageError: names the first such point and what differs there.
    """
    frame = normalized(rows)
    for column, settings in SAME.items():
        known = frame[frame[column] != ""]
        if known.empty:
            continue
        counts = known.groupby(settings, dropna=False, sort=False)[column].unique()
        for values, found in counts[counts.map(len) > 1].items():
            where = {n: v for n, v in zip(settings, values, strict=True) if n != "benchmark" and pd.notna(v)}
            different = _WHAT[column].format(", ".join(map(clean, found[:3])))
            raise UsageError(
                f"{describe(where)}: the rows are of different {different}, not to be put side by side: "
                f"show runs of each apart"
            )
