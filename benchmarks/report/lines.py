"""One line for each estimator and setting: noise, cost and where training with it ended."""

from __future__ import annotations

import pandas as pd

from ..rows.bias import WRONG
from ..rows.throughput import rank_by
from ..rows.wide import (
    PANELS,
    at_default,
    at_default_samples,
    family,
    measured,
    ordered,
)
from ..tables.cases import convergence_cases, join, throughput_cases, variance_cases
from ..tables.columns import TABLES
from ..tables.targets import target_cases, typical

_SAME = ["problem", "latent_dim", "batch_size", "device", "dtype", "mode", "estimator"]
_ENDS = ("", "_low", "_high")
#: Where a line belongs: settings that tell apart lines of one estimator.
SETTINGS = ["problem", "latent_dim", "batch_size", "num_samples", "step", "device", "dtype", "mode"]


def lines(rows: pd.DataFrame) -> pd.DataFrame:
    """The cases of one run with all that the verdict is about, the best first.

    Training and throughput are those of the same problem, sizes and device. Where an estimator was trained at
    one S alone they stand beside its variance at every S: ``trained_samples`` and ``timed_samples`` tell at
    which they were measured. ``lost`` is the status of a case whose variance was not measured; ``default``
    marks the settings that sweeps were made about, at the last step.
    """
    (of_variance,) = [table for table in TABLES if table.name == "variance"]
    table = of_variance.readable(variance_cases(rows))
    table["lost"] = [_lost(note) for note in table["note"]]
    trained = convergence_cases(rows)
    kept = [f"heldout_objective{end}" for end in _ENDS]
    table = _joined(table, trained, [*kept, "seeds", "diverged"], "trained_samples")
    table = _with_times_to_target(table, rows)
    timed = throughput_cases(rows)
    if len(table):
        timed = timed[timed["mode"] == "eager"]
    table = _joined(table, timed, [f"steps_per_second{end}" for end in _ENDS], "timed_samples")
    table["note"] = table["note"].map(_of_these)
    table["objective"] = table["objective"].fillna("")
    table["family"] = table["problem"].map(family)
    table["default"] = _default(rows, table)
    value = table["work_normalized_variance"].fillna(table["variance"])
    by = pd.DataFrame(
        {
            "default": ~table["default"],
            "place": table.groupby([*PANELS, "num_samples"], dropna=False, sort=False).ngroup(),
            "wrong": table["bias_verdict"] == WRONG,
            "value": value,
            "objective": -table["heldout_objective"],
            "speed": -rank_by(table, "steps_per_second"),
        }
    )
    order = by.sort_values(list(by), kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _lost(note: str) -> str:
    """The status that a note begins with; "" where it is a warning."""
    status = note.partition(": ")[0]
    return status if status in ("skipped", "failed", "diverged") else ""


def _of_these(note: str) -> str:
    """A note, less what it says of numbers that these lines do not have."""
    return "; ".join(part for part in note.split("; ") if not part.startswith("minibatch variance: "))


def _joined(table: pd.DataFrame, other: pd.DataFrame, columns: list[str], samples: str) -> pd.DataFrame:
    """The table with columns of another benchmark, and lines for those of its cases that match none."""
    other = other[[*_SAME, "num_samples", "note", *columns]].rename(columns={"note": "other_note"})
    several = other.groupby(_SAME, dropna=False)["num_samples"].nunique().gt(1).any()
    if several:
        other = other.assign(**{samples: other["num_samples"]})
        merged = table.merge(other, on=[*_SAME, "num_samples"], how="outer")
    else:
        merged = table.merge(other.rename(columns={"num_samples": samples}), on=_SAME, how="outer")
        merged["num_samples"] = merged["num_samples"].fillna(merged[samples])
    # A case that was skipped in both benchmarks is said once.
    notes = zip(merged["note"], merged.pop("other_note"), strict=True)
    merged["note"] = [join(note for note in pair if isinstance(note, str)) for pair in notes]
    return ordered(merged)


def _with_times_to_target(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Median steps to one target of each problem, beside where training ended."""
    times = typical(target_cases(rows)).rename(columns={"num_samples": "trained_samples"})
    columns = [f"steps{end}" for end in (*_ENDS, "_budget")]
    if times.empty:
        return table.assign(**dict.fromkeys(columns, float("nan")))
    return table.merge(
        times[[*_SAME, "trained_samples", *columns]], on=[*_SAME, "trained_samples"], how="left"
    )


def _default(rows: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    """Which lines are at the settings that most was measured at: each problem's last step, one S."""
    points = measured(rows, "variance", ["variance"]).assign(objective="")  # one S for all objectives
    if points.empty:
        return pd.Series(True, index=table.index)
    points, _ = at_default(points, "variance")
    if points.empty:  # every estimator is deterministic
        points = at_default_samples(measured(rows, "variance", ["variance"]).assign(objective=""))
    last = points["step"].groupby(points["problem"].map(family)).transform("max")
    points = points[(points["step"] == last) | points["step"].isna()]
    settings = [*(setting for setting in PANELS if setting != "objective"), "num_samples"]
    here = points[settings].drop_duplicates().assign(here=True)
    found = table[settings].merge(here, on=settings, how="left")["here"]
    return pd.Series(found.notna().to_numpy(), index=table.index)
