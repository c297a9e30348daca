"""What is drawn of tuning and of times to targets: curves with bands, one frame for each kind of figure.

Each has the columns that panels are made by, ``estimator`` and ``label``, and in ``x``, ``y``, ``low`` and
``high`` the points of a curve; NaN ends where there is no band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .targets import reached
from .training_profiles import profiles
from .tuning import WORKLOAD, best_of, trials
from .wide import separate_samples

_PLACES = [column for column in WORKLOAD if column not in ("num_samples", "mode")]
_POINTS = ["x", "y", "low", "high"]


@dataclass(frozen=True)
class CurveKind:
    """How one kind of curve is drawn.

    Attributes:
        x, y: labels of the axes.
        steps: whether a curve stays where it is between its points.
        log: whether the horizontal axis is logarithmic.
        shares: whether y is a share, from 0 to 1.
        by: what panels differ in.
    """

    x: str
    y: str
    steps: bool
    log: bool
    shares: bool
    by: tuple[str, ...] = ()


BEST_OF = CurveKind(
    "trials",
    "expected best objective\n(nats per datum)",
    steps=False,
    log=False,
    shares=False,
    by=(*_PLACES,),
)
REACH = CurveKind("training steps", "share of runs at the target", True, False, True, (*_PLACES, "target"))
PROFILE = CurveKind(
    "τ: median steps to the target, times the least", "share of instances, ρ(τ)", True, True, True
)


def best_of_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The expected best of k trials against k."""
    made = []
    for values, one in trials(rows).groupby([*WORKLOAD, "estimator"], dropna=False, sort=False):
        if len(one) < 2:
            continue
        curve = best_of(one)
        made.append(_curve(values, [*WORKLOAD, "estimator"], curve.k, curve.value, curve.low, curve.high))
    return _labelled(made, list(BEST_OF.by))


def reach_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The share of runs at a target against steps: one less the Kaplan–Meier estimate."""
    made = []
    for one in reached(rows):
        times = one.times.get("step")
        if times is None:
            continue
        x, left = times.curve()
        x, y = np.append(x, times.budget), 1 - np.append(left, left[-1])
        target = f"{one.target.name}: {one.target.objective:.4g} nats"
        values = [*one.workload.values(), one.estimator, target]
        missing = np.full_like(x, np.nan)
        made.append(_curve(values, [*WORKLOAD, "estimator", "target"], x, y, missing, missing))
    return _labelled(made, list(REACH.by))


def shown_until(points: pd.DataFrame, kind: CurveKind) -> float:
    """Right end of a panel: where all runs are at the target nothing more is to be seen."""
    end = float(points["x"].max())
    if not kind.shares or kind.log or points.groupby("label")["y"].max().min() < 1:
        return end
    rises = points[points["y"] < 1]["x"].max(), points[points["y"] >= 1].groupby("label")["x"].min().max()
    return min(end, 1.3 * float(max(rises)))


def profile_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Performance profiles of the steps to targets, over workloads and targets."""
    made = [
        _curve([one.estimator], ["estimator"], one.tau, one.share, one.low, one.high)
        for one in profiles(reached(rows))
    ]
    return pd.concat(made, ignore_index=True).assign(label=lambda f: f["estimator"]) if made else _nothing()


def instances(rows: pd.DataFrame) -> int:
    """Pairs of a workload and a target."""
    return len({(*map(str, one.workload.values()), one.target) for one in reached(rows)})


def _curve(values: Iterable[object], columns: Sequence[str], *points: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(dict(zip(_POINTS, points, strict=True)))
    return frame.assign(**dict(zip(columns, values, strict=True)))


def _labelled(made: list[pd.DataFrame], by: list[str]) -> pd.DataFrame:
    """All curves in one frame, ``label`` their names: estimators, with their S where that differs."""
    if not made:
        return _nothing()
    frame = pd.concat(made, ignore_index=True)
    _, labels = separate_samples(frame, by)
    return frame.assign(label=labels)


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=[*_PLACES, "num_samples", "estimator", "label", *_POINTS])
