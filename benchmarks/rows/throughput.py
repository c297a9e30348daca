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


#: What a note says of a rate whose interval is wider than twice the rate.
TOO_NOISY = "too noisy to rank: the interval is wider than twice the rate"


def rank_by(cases: pd.DataFrame, metric: str) -> pd.Series:
    """What rates are ranked by, higher is better: the lower end of the interval; the value without one.

    A median that a few timings happened to put high has a low end near 0, and does not stand above one that
    is known; what is too noisy comes last.
    """
    low = cases[f"{metric}_low"].fillna(cases[metric])
    return low.where(~too_noisy(cases, metric), low - low.abs().max() - 1)


def too_noisy(cases: pd.DataFrame, metric: str) -> pd.Series:
    """Whether half of the interval's width exceeds the value."""
    return (cases[f"{metric}_high"] - cases[f"{metric}_low"]) / 2 > cases[metric]


def throughput_points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a case, with those of the metrics in `LABELS` that any case has; memory in MiB."""
    frame = select(rows, "throughput")
    frame = frame[(frame["status"] == "done") & frame["metric"].isin(LABELS) & frame["value"].notna()]
    points = pivot(frame, [metric for metric in LABELS if (frame["metric"] == metric).any()])
    for memory in points.columns.intersection(["peak_memory", "peak_memory_low", "peak_memory_high"]):
        points[memory] /= 2**20
    return points
