"""How the ranking of estimators depends on the budget: of trials to tune in, and of steps to train for."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .seeds import OBJECTIVE, by_seed
from .text import describe_shared, shorten
from .tuning import WORKLOAD, best_of, trials
from .wide import select

_EARLY = 0.25  # of the steps


@dataclass(frozen=True)
class Leaders:
    """Who leads on one workload, by the mean over seeds.

    Attributes:
        workload: in words.
        one_trial, all_trials: by the expected best objective of one trial, and of all; "" where nothing was
            tuned.
        trials: how many all are.
        early, late: by the held-out objective at a quarter of the steps, and at the end.
    """

    workload: str
    one_trial: str
    all_trials: str
    trials: int
    early: str
    late: str

    @property
    def sentence(self) -> str:
        """In words; what is told is the order of means, which intervals may not support."""
        tuned = {self.one_trial, self.all_trials} - {""}
        everyone = tuned | {self.early, self.late}
        if len(everyone) == 1:
            return f"On {self.workload}, {self.late} leads whatever the budget."
        said = []
        if len(tuned) == 2:
            said.append(
                f"with one trial of tuning {self.one_trial} is expected ahead, with {self.trials} "
                f"{self.all_trials}"
            )
        elif tuned:
            said.append(f"{self.all_trials} is expected ahead with one trial of tuning as with {self.trials}")
        if self.early == self.late:
            said.append(f"{self.late} leads after a quarter of the steps and at the end")
        else:
            said.append(f"{self.early} leads after a quarter of the steps, {self.late} at the end")
        return f"On {self.workload}, {'; '.join(said)}."


def leaders(rows: pd.DataFrame) -> list[Leaders]:
    """Of every workload on which at least two estimators were trained."""
    frame, tried = select(rows, "convergence"), trials(rows)
    found = []
    for values, of_workload in frame.groupby(WORKLOAD, dropna=False, sort=False):
        workload = dict(zip(WORKLOAD, values, strict=True))
        curves = {
            str(name): by_seed(one, OBJECTIVE).mean(axis=1)
            for name, one in of_workload.groupby("estimator", sort=False)
        }
        curves = {name: curve.dropna() for name, curve in curves.items() if curve.notna().any()}
        if len(curves) < 2:
            continue
        end = max(curve.index[-1] for curve in curves.values())
        early = {name: float(curve[curve.index <= _EARLY * end].iloc[-1]) for name, curve in curves.items()}
        late = {name: float(curve.iloc[-1]) for name, curve in curves.items()}
        one, all_, count = _of_tuning(tried, workload)
        words = describe_shared({k: workload[k] for k in ("problem", "num_samples")})
        names = [shorten(name, 40) for name in (one, all_, _first(early), _first(late))]
        found.append(Leaders(words, names[0], names[1], count, names[2], names[3]))
    return found


def _of_tuning(tried: pd.DataFrame, workload: dict[str, object]) -> tuple[str, str, int]:
    for column, value in workload.items():
        tried = tried[tried[column].isna() if pd.isna(value) else tried[column] == value]
    curves = {str(name): best_of(one) for name, one in tried.groupby("estimator", sort=False)}
    if not curves:
        return "", "", 0
    least = min(len(curve.k) for curve in curves.values())
    one = {name: float(curve.value[0]) for name, curve in curves.items()}
    all_ = {name: float(curve.value[least - 1]) for name, curve in curves.items()}
    return _first(one), _first(all_), least


def _first(values: dict[str, float]) -> str:
    return max(values, key=lambda name: values[name])
