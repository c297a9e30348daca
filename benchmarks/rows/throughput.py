"""What was measured of each throughput case, for figures."""

from __future__ import annotations

import pandas as pd

from .wide import pivot, select

#: metric -> the label of its axis.
LABELS = {
    "steps_per_second": "training steps a second",
    "gradients_per_second": "gradients a second",
    "peak_memory": "peak memory (MiB)",
}


def throughput_points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a case, with those of the metrics in `LABELS` that any case has; memory in MiB."""
    frame = select(rows, "throughput")
    frame = frame[(frame["status"] == "done") & frame["metric"].isin(LABELS) & frame["value"].notna()]
    points = pivot(frame, [metric for metric in LABELS if (frame["metric"] == metric).any()])
    for memory in points.columns.intersection(["peak_memory", "peak_memory_low", "peak_memory_high"]):
        points[memory] /= 2**20
    return points
