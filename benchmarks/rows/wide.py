"""From long rows to one line a case, with a column for each metric."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import Specification, parse
from .schema import COLUMNS

#: What tells one case from another. A case that was measured twice counts by its last row.
KEYS = [
    "problem",
    "latent_dim",
    "batch_size",
    "objective",
    "step",
    "device",
    "dtype",
    "mode",
    "num_samples",
    "estimator",
]
#: What figures give a panel of its own.
PANELS = ["problem", "latent_dim", "batch_size", "device", "dtype", "objective", "step"]
#: Relative to the largest of its problem, a variance below this is rounding: the estimator is deterministic.
NEGLIGIBLE = 1e-10
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


def normalized(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every column of the schema: numbers as float64, NaN for None; text as str."""
    frame = rows.reindex(columns=list(COLUMNS))
    for name, (kind, _, _) in COLUMNS.items():
        if kind is str:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str).astype(object)
        else:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    # A divergence may be stored as an infinite value; an interval may well have an infinite end.
    frame["value"] = frame["value"].where(np.isfinite(frame["value"]))
    return frame.reset_index(drop=True)


def select(rows: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The normalized rows of one benchmark that describe the whole of phi, not one parameter tensor."""
    frame = normalized(rows)
    frame = frame[(frame["benchmark"] == benchmark) & (frame["parameter"] == "")].copy()
    # A case that never ran may not know its sizes; the others of its problem do, where they agree.
    for size in ("batch_size", "latent_dim"):
        known = frame.groupby("problem")[size].transform("nunique") == 1
        only = frame.groupby("problem")[size].transform("max").where(known)
        frame[size] = frame[size].fillna(only)
    return frame


def pivot(frame: pd.DataFrame, metrics: Sequence[str], keys: Sequence[str] = KEYS) -> pd.DataFrame:
    """One line a case; for each metric m the columns ``m``, ``m_low``, ``m_high``, ``m_n`` and ``m_reason``.

    ``m_reason`` is the row's warning, "" where there is none. Cases come in the order of the keys.
    """
    keys = list(keys)
    wide = frame[keys].drop_duplicates()
    for metric in metrics:
        columns = {
            "value": metric,
            "ci_low": f"{metric}_low",
            "ci_high": f"{metric}_high",
            "n": f"{metric}_n",
            "reason": f"{metric}_reason",
        }
        one = frame[frame["metric"] == metric].drop_duplicates(keys, keep="last")
        wide = wide.merge(one[[*keys, *columns]].rename(columns=columns), on=keys, how="left")
        wide[f"{metric}_reason"] = wide[f"{metric}_reason"].fillna("")
    return ordered(wide)


def ordered(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases sorted by their settings, latent_dim=2 before latent_dim=16 and eager before other modes."""
    keys = [key for key in KEYS if key in cases and key not in ("problem", "latent_dim")]
    ranks = {
        "family": _rank(cases["problem"].map(family)),
        "within": _rank(cases["problem"]),
        "compiled": cases["mode"] != "eager",
    }
    by = ["family", "latent_dim", "within", "compiled", *keys]
    return cases.assign(**ranks).sort_values(by, kind="stable", ignore_index=True).drop(columns=list(ranks))


def _rank(names: pd.Series) -> pd.Series:
    """The place of each name in their order, numbers in them by size: k=2 before k=10."""
    ordered = sorted(names.unique(), key=lambda name: [*map(_by_size, re.split(_NUMBER, name))])
    return names.map({name: place for place, name in enumerate(ordered)}).astype(int)


def _by_size(part: str) -> tuple[float, str]:
    return (float(part), "") if re.fullmatch(_NUMBER, part) else (math.inf, part)


def measured(rows: pd.DataFrame, benchmark: str, metrics: Sequence[str]) -> pd.DataFrame:
    """The cases of a benchmark, one a line, whose first metric was measured."""
    frame = select(rows, benchmark)
    wide = pivot(frame[frame["status"] == "done"], metrics)
    return wide[wide[metrics[0]].notna()].reset_index(drop=True)


def unmeasured(rows: pd.DataFrame, benchmark: str) -> dict[str, str]:
    """estimator -> why it was skipped or failed, for those with no measured case."""
    frame = select(rows, benchmark)
    lost = frame[frame["status"].isin(["skipped", "failed"])]
    found = set(frame.loc[(frame["status"] == "done") & frame["value"].notna(), "estimator"])
    return {
        str(name): str(reason or status)
        for name, status, reason in zip(lost["estimator"], lost["status"], lost["reason"], strict=True)
        if name not in found
    }


def without_negligible(points: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """The points that a logarithmic axis can show, and the estimators left out: a value of about zero."""
    largest = points.groupby("problem")[metric].transform("max")
    base = points["estimator"].str.split("[").str[0]
    shown = (points[metric] > NEGLIGIBLE * largest) & (base != "exact")
    left_out = sorted(set(points.loc[~shown, "estimator"]) - set(points.loc[shown, "estimator"]))
    return points[shown].reset_index(drop=True), left_out


def at_default_samples(points: pd.DataFrame) -> pd.DataFrame:
    """Of each problem the points at one S: the smallest of those that the most estimators share."""
    kept = []
    for _, of_problem in points.groupby(_compared_within(points), sort=False):
        counts = of_problem.groupby("num_samples", dropna=False)["estimator"].nunique()
        best = counts[counts == counts.max()].index.min()
        same = of_problem["num_samples"].isna() if pd.isna(best) else of_problem["num_samples"] == best
        kept.append(of_problem[same])
    return pd.concat(kept) if kept else points


def at_swept_samples(points: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Of each problem the points at one S: that at which ``setting`` was swept, else `at_default_samples`."""
    kept = []
    for _, of_problem in points.groupby(_compared_within(points), sort=False):
        values = of_problem.groupby("num_samples", dropna=False)[setting].nunique()
        most = values[values == values.max()].index
        kept.append(at_default_samples(of_problem[of_problem["num_samples"].isin(most)]))
    return pd.concat(kept) if kept else points


def _compared_within(points: pd.DataFrame) -> list[str]:
    return [key for key in ("problem", "objective") if key in points]


def at_base(points: pd.DataFrame) -> pd.DataFrame:
    """The points that settings were swept about: `at_base_sizes`, at each problem's first and last step."""
    steps = points.groupby(points["problem"].map(family), sort=False)["step"]
    ends = (points["step"] == steps.transform("min")) | (points["step"] == steps.transform("max"))
    return at_base_sizes(points[ends | points["step"].isna()])


def at_base_sizes(points: pd.DataFrame) -> pd.DataFrame:
    """The points at the sizes (D, B) that most cases of the problem share; several where equally common."""
    if points.empty:
        return points
    points = points.assign(family=points["problem"].map(family))
    sizes = ["family", "latent_dim", "batch_size"]
    cases = points.drop_duplicates([key for key in KEYS if key in points])
    count = cases.groupby(sizes, dropna=False, sort=False).size().rename("cases").reset_index()
    count = count[count["cases"] == count.groupby("family")["cases"].transform("max")]
    kept = points.reset_index().merge(count, on=sizes).set_index("index").sort_index()
    return kept.drop(columns=["family", "cases"]).rename_axis(None)


def at_default(points: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """The base of the sweeps at one S of each problem, and who is left out there for a value of about 0."""
    shown, zero = without_negligible(points, metric)
    shown = at_default_samples(at_base(shown)).reset_index(drop=True)
    return shown, measured_beside(shown, points, zero)


def measured_beside(shown: pd.DataFrame, points: pd.DataFrame, names: list[str]) -> list[str]:
    """The estimators among ``names`` that have points at the settings shown."""
    settings = [*PANELS, "num_samples"]
    here = points.merge(shown[settings].drop_duplicates(), on=settings)
    return [name for name in names if name in set(here["estimator"])]


def parts(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A line for each part that a metric of the variance benchmark is reported for, such as a layer.

    Columns are the keys, ``parameter``, the metric and ``{metric}_low``, ``_high``, ``_n``, ``_reason``, and
    ``total``, the case's variance.
    """
    frame = normalized(rows)
    frame = frame[(frame["benchmark"] == "variance") & (frame["status"] == "done") & frame["value"].notna()]
    found = pivot(
        frame[(frame["metric"] == metric) & (frame["parameter"] != "")], [metric], [*KEYS, "parameter"]
    )
    total = frame[(frame["metric"] == "variance") & (frame["parameter"] == "")]
    total = total.drop_duplicates(KEYS, keep="last").rename(columns={"value": "total"})
    return found.merge(total[[*KEYS, "total"]], on=KEYS, how="left")


def family(problem: str) -> str:
    """The problem specification less its latent_dim: what stays the same when only D changes.

    >>> family("vae[hidden=32,latent_dim=2]")
    'vae[hidden=32]'
    """
    try:
        parsed = parse(problem)
    except UsageError:
        return problem
    rest = {key: value for key, value in parsed.parameters.items() if key != "latent_dim"}
    return str(Specification(parsed.name, rest))


def separate_samples(frame: pd.DataFrame, by: list[str]) -> tuple[list[str], pd.Series]:
    """How to show rows whose estimators may need different S.

    Returns:
        the settings that panels differ in (S among them where an estimator has several, or all the same), and
        for each row the estimator's name, with its S where estimators of one panel differ in it.
    """
    each = frame.groupby([*by, "estimator"], dropna=False)["num_samples"].nunique()
    if (each > 1).any() or frame["num_samples"].nunique(dropna=False) == 1:
        return [*by, "num_samples"], frame["estimator"]
    return by, frame["estimator"] + frame["num_samples"].map(
        lambda s: "" if pd.isna(s) else f" (S = {s:.0f})"
    )
