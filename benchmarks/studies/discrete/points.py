"""The rows of a comparison as one line a case: variance, squared bias, cost, and what was varied."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ....estimators.plugins.specification import parse
from ...rows.rankings import pareto_front
from ...rows.wide import pivot, select
from .runs import BUDGETS

_METRICS = (
    "variance",
    "squared_bias",
    "mean_squared_error",
    "gradient_norm",
    "bias",
    "bias_bound",
    "unbiased",
    "seconds",
    "evaluations",
)
_ENDS = ("", "_low", "_high")


def points_of(rows: pd.DataFrame, costs: pd.DataFrame | None = None) -> pd.DataFrame:
    """One line a case: what `pivot` makes of the metrics of a comparison, and what follows from them.

    That is ``biased``; ``error`` with its interval, the mean squared error, of an unbiased one the variance;
    ``budget``, the number of evaluations that S was chosen for; ``milliseconds`` with its interval;
    ``squared_norm`` of the gradient there; ``base``, the estimator's name, and its ``temperature``;
    ``family``, "bernoulli" or "categorical", ``variables`` and ``states`` of a problem.

    Args:
        rows: of a run.
        costs: those of the run that times are taken from, which depend on no step; None for the same.
    """
    frame = select(rows, "variance")
    wide = pivot(frame[frame["status"] == "done"], _METRICS)
    wide = wide[wide["variance"].notna()].reset_index(drop=True)
    if costs is not None:
        wide = _timed(wide, costs)
    wide["biased"] = wide["unbiased"] == 0
    for end in _ENDS:
        wide[f"error{end}"] = wide[f"mean_squared_error{end}"].where(wide["biased"], wide[f"variance{end}"])
        wide[f"milliseconds{end}"] = 1000 * wide[f"seconds{end}"]
    wide["budget"] = [next((b for b in BUDGETS if b >= n), np.nan) for n in wide["evaluations"]]
    wide["squared_norm"] = _squared_norm(wide)
    parsed = [parse(name) for name in wide["estimator"]]
    wide["temperature"] = [float(p.parameters.get("temperature", np.nan)) for p in parsed]  # type: ignore[arg-type]
    wide["base"] = [p.name for p in parsed]
    problems = [parse(name) for name in wide["problem"]]
    wide["family"] = [p.name.partition("-")[0] for p in problems]
    wide["variables"] = wide["latent_dim"]
    wide["states"] = [int(str(p.parameters.get("categories", 2))) for p in problems]
    return wide


def _timed(wide: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """With the seconds of another run, of the same problem, estimator and S."""
    keys = ["problem", "estimator", "num_samples"]
    times = [f"seconds{end}" for end in _ENDS]
    other = pivot(select(costs, "variance"), ("seconds",))[[*keys, *times]]
    return wide.drop(columns=times).merge(other, on=keys, how="left")


def _squared_norm(wide: pd.DataFrame) -> pd.Series:
    """‖∇φ‖² at each problem and step, by the mean of the least noisy unbiased estimator there."""
    sound = wide[~wide["biased"]]
    quietest = sound.loc[sound.groupby(["problem", "step"])["variance"].idxmin()]
    norms = quietest.set_index(["problem", "step"])["gradient_norm"] ** 2
    at = pd.MultiIndex.from_frame(wide[["problem", "step"]])
    return pd.Series(norms.reindex(at).to_numpy(), index=wide.index)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats in both milliseconds and mean squared error, fastest first."""
    return pareto_front(points.drop(columns="variance").rename(columns={"error": "variance"})).rename(
        columns={"variance": "error"}
    )


def pays_until(biased: pd.Series, sound: pd.Series) -> float:
    """Up to how many averaged estimates each, of as many evaluations, the biased one's error is the lower."""
    gain = sound["variance"] - biased["variance"]
    if gain <= 0:
        return 0.0
    return float(gain / biased["squared_bias"]) if biased["squared_bias"] > 0 else np.inf
