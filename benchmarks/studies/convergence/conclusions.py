"""What the runs support: numbers with intervals, from long rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ....estimators.kl_weight import is_elbo
from ....estimators.plugins.registry import create
from ...rows.seeds import OBJECTIVE, by_seed
from ...rows.targets import Reached, by_target, reached
from ...rows.wide import measured, select
from ...statistics.time_to_target import paired_p_value

_RESAMPLES = 2000
_TYPICAL = "median"
_FEW = 4  # estimators that a rank correlation is told of at least


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ between the variance at a checkpoint and the restricted mean of the steps to a target.

    Attributes:
        value: over estimators.
        low, high: 95% bootstrap interval over estimators and seeds (percentile).
        estimators: how many.
    """

    value: float
    low: float
    high: float
    estimators: int


def rank_correlation(rows: pd.DataFrame, seed: int = 0) -> RankCorrelation | None:
    """Does lower variance predict faster training? None with fewer than four unbiased estimators.

    Of estimators that declare a bias the variance tells but a part: they are left out.
    """
    times = _typical(reached(rows))
    variances = measured(rows, "variance", ["variance"])
    variance = variances.drop_duplicates("estimator", keep="last").set_index("estimator")["variance"]
    names = [
        one.estimator
        for one in times
        if one.estimator in variance.index and variance[one.estimator] > 0 and _unbiased(one.estimator)
    ]
    if len(names) < _FEW:
        return None
    of_names = {one.estimator: one.times["step"].restricted for one in times}
    table = np.array([of_names[name] for name in names])  # (estimators, seeds)
    noise = variance[names].to_numpy()
    value = _spearman(noise, table.mean(axis=1))
    if math.isnan(value):
        return None
    drawn = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        which = drawn.integers(len(names), size=len(names))
        seeds = drawn.integers(table.shape[1], size=table.shape[1])
        found.append(_spearman(noise[which], table[which][:, seeds].mean(axis=1)))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return RankCorrelation(value, float(low), float(high), len(names))


@dataclass(frozen=True)
class Difference:
    """A difference of held-out objectives at the end, paired by seed, nats a datum.

    Attributes:
        one, other: estimators; positive where the first is higher.
        value: the mean over seeds.
        low, high: its 95% interval by Student's t.
        p_value: by exchanging within pairs.
    """

    one: str
    other: str
    value: float
    low: float
    high: float
    p_value: float


def biased_against_unbiased(rows: pd.DataFrame) -> list[Difference]:
    """Each estimator that declares a bias against the unbiased one that ended highest on the workload."""
    ends = final_objectives(rows)
    unbiased = [name for name in ends if _unbiased(name)]
    if not unbiased:
        return []
    best = max(unbiased, key=lambda name: float(ends[name].mean()))
    return [difference(ends, name, best) for name in ends if not _unbiased(name)]


def in_two_workloads(rows: pd.DataFrame, others: pd.DataFrame) -> list[Difference]:
    """Each estimator at the end of one workload less at the end of the other, of the same seeds."""
    ends, other = final_objectives(rows), final_objectives(others)
    return [difference({"": ends[name], name: other[name]}, "", name) for name in ends if name in other]


def final_objectives(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """estimator -> the last held-out objective of each seed that did not diverge, by seed."""
    found = {}
    for name, one in select(rows, "convergence").groupby("estimator", sort=False):
        curve = by_seed(one, OBJECTIVE)
        if len(curve):
            last = curve.iloc[-1].dropna()
            if len(last):
                found[str(name)] = last
    return found


def difference(ends: dict[str, pd.Series], one: str, other: str) -> Difference:
    """Of two estimators, over the seeds that both have."""
    gap = (ends[one] - ends[other]).dropna().to_numpy()
    mean, n = float(gap.mean()) if len(gap) else math.nan, len(gap)
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * gap.std(ddof=1) / math.sqrt(n))
    return Difference(one, other, mean, mean - half, mean + half, paired_p_value(gap, np.zeros(n)))


def at_equal_evaluations(rows: pd.DataFrame) -> pd.DataFrame:
    """What S buys: the mean held-out objective after as many evaluations as the least S of an estimator has.

    Columns: estimator, num_samples, evaluations, objective, low, high, seeds. Straight lines between
    evaluations of the objective.
    """
    frame = select(rows, "convergence")
    lines = []
    for name, of_estimator in frame.groupby("estimator", sort=False):
        budget = (
            of_estimator[of_estimator["metric"] == "evaluations"].groupby("num_samples")["value"].max().min()
        )
        for samples, one in of_estimator.groupby("num_samples"):
            objective, spent = by_seed(one, OBJECTIVE), by_seed(one, "evaluations")
            values = [
                np.interp(budget, spent[seed].dropna(), objective[seed].loc[spent[seed].dropna().index])
                for seed in objective.columns.intersection(spent.columns)
                if objective[seed].notna().all()
            ]
            mean, half = float(np.mean(values)), math.nan
            if len(values) > 1:
                half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
            lines.append([name, int(samples), float(budget), mean, mean - half, mean + half, len(values)])
    columns = ["estimator", "num_samples", "evaluations", "objective", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def _typical(found: Sequence[Reached]) -> list[Reached]:
    """One target of the first workload: the median of what tuning has reached, or the last there is."""
    groups = list(by_target(found))
    typical = [group for group in groups if group[0].target.name == _TYPICAL]
    return (typical or groups[-1:] or [[]])[0]


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def _unbiased(estimator: str) -> bool:
    """For the ELBO: what is unbiased for a relaxed objective, say, is not."""
    made = create(estimator)
    return made.unbiased and is_elbo(made.objective)
