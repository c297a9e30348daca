"""One line a case with unrounded numbers: what the printed tables and the CSV files are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

import pandas as pd

from ..rows.bias import WRONG, note_on, with_verdicts
from ..rows.schema import NOT_TIMED
from ..rows.seeds import mean_interval
from ..rows.text import clean
from ..rows.throughput import TOO_NOISY, rank_by, too_noisy
from ..rows.wide import KEYS, PANELS, normalized, ordered, parts, pivot, select

_TIMELESS = [key for key in KEYS if key not in ("objective", "step")]
# metric -> whether it comes with an interval
_VARIANCE = {
    "variance": True,
    "gradient_norm": True,
    "snr": True,
    "cosine": True,
    "kurtosis": False,
    "minibatch_variance": True,
    "heldout_gap": False,
    "bias": True,
    "bias_bound": False,
    "seconds": True,
    "evaluations": False,
    "work_normalized_variance": True,
}
_BREAKDOWN = ("snr", "cosine", "kurtosis", "minibatch_variance", "heldout_gap")
_PARTS = ("eta_variance", "variance_by_layer")
_THROUGHPUT = {"steps_per_second": True, "gradients_per_second": True, "peak_memory": False}
_OVER_SEEDS = (
    "heldout_objective",
    "train_objective",
    "heldout_log_likelihood",
    "exact_log_likelihood",
    "annealed_gain",
    "seconds",
)
_UNTUNED = "untuned"  # the part of a case that holds the runs at the usual learning rate
_ENDS = ("", "_low", "_high")
# metrics whose warnings are of no other number of the case: the note names them
_NAMED_IN_NOTES = {"minibatch_variance": "minibatch variance"}


def variance_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """The cases of the variance benchmark, in the units of the rows; seconds are per gradient.

    Within the same settings the least noisy estimator comes first.
    """
    frame = select(rows, "variance")
    wide = _chosen(pivot(frame, list(_VARIANCE)), _VARIANCE, n="replicates")
    product = wide["variance"] * wide["seconds"]
    wide["work_normalized_variance"] = wide["work_normalized_variance"].fillna(product)
    wide = with_verdicts(wide.merge(_notes(frame, KEYS), on=KEYS, how="left"), rows)
    judged = zip(map(note_on, wide.to_dict("records")), wide.pop("note"), strict=True)
    return _best_first(wide.assign(note=[join(parts) for parts in judged]), "variance")


def breakdown_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """What the variance consists of and how it compares with the signal, one line a case.

    The least noisy comes first. A metric m reported by part has a column ``m[part]`` for each, such as
    ``eta_variance[mean]``.
    """
    metrics = {"variance": False} | {name: _VARIANCE[name] for name in _BREAKDOWN}
    table = _chosen(pivot(select(rows, "variance"), list(metrics)), metrics, n="replicates")
    table = table[table[list(_BREAKDOWN)].notna().any(axis=1)]
    for metric in _PARTS:
        found = parts(rows, metric)
        for part, of_part in found.groupby("parameter", sort=False):
            one = of_part[[*KEYS, metric]].rename(columns={metric: f"{metric}[{part}]"})
            table = table.merge(one, on=KEYS, how="left")
    return _best_first(table.assign(note=""), "variance")


def ratio_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """Ratios of a case's variance to that of the estimator ``relative_to``, the smallest first."""
    found = parts(rows, "variance_ratio").rename(columns={"parameter": "relative_to"})
    metrics = {"variance_ratio": True}
    table = _chosen(found, metrics, n="replicates").assign(relative_to=found["relative_to"])
    return _best_first(table.assign(note=found["variance_ratio_reason"]), "variance_ratio")


def convergence_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """The training cases: where their seeds ended, in nats per datum, and after how many seconds.

    Means and their 95% intervals are over the seeds that did not diverge; ``diverged`` counts the others.
    """
    frame = select(rows, "convergence")
    lines = [
        {**dict(zip(_TIMELESS, values, strict=True)), **_ends(case)}
        for values, case in frame.groupby(_TIMELESS, dropna=False, sort=False)
    ]
    columns = [*_TIMELESS, "steps", "seeds", "diverged", "learning_rate"]
    columns += [f"{metric}{end}" for metric in _OVER_SEEDS for end in _ENDS]
    untuned = _untuned(rows)
    table = pd.DataFrame(lines, columns=columns).astype(frame[_TIMELESS].dtypes.to_dict())
    table = table.merge(untuned, on=_TIMELESS, how="left")
    table = table.merge(_notes(frame, _TIMELESS), on=_TIMELESS, how="left")
    return _best_first(ordered(table), "heldout_objective", ascending=False)


def _untuned(rows: pd.DataFrame) -> pd.DataFrame:
    """Where the runs at the usual rate ended: ``untuned_objective`` with its interval."""
    frame = normalized(rows)
    frame = frame[(frame["benchmark"] == "convergence") & (frame["parameter"] == _UNTUNED)]
    lines = []
    for values, case in frame.groupby(_TIMELESS, dropna=False, sort=False):
        ends = _ends(case)
        own = {f"untuned_objective{e}": ends.get(f"heldout_objective{e}", math.nan) for e in _ENDS}
        lines.append({**dict(zip(_TIMELESS, values, strict=True)), **own})
    columns = [*_TIMELESS, *(f"untuned_objective{end}" for end in _ENDS)]
    return pd.DataFrame(lines, columns=columns).astype(frame[_TIMELESS].dtypes.to_dict())


def throughput_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """The cases of the throughput benchmark, peak memory in bytes.

    The fastest come first by the lower ends of their intervals, those too noisy to rank last, with a note.
    """
    frame = select(rows, "throughput")
    wide = _chosen(pivot(frame, list(_THROUGHPUT), _TIMELESS), _THROUGHPUT, n="repetitions")
    wide = wide.merge(_notes(frame, _TIMELESS), on=_TIMELESS, how="left")
    noisy = too_noisy(wide, "steps_per_second").map({True: TOO_NOISY, False: ""})
    wide["note"] = [join(pair) for pair in zip(wide["note"], noisy, strict=True)]
    ranked = _best_first(wide.assign(rank=rank_by(wide, "steps_per_second")), "rank", ascending=False)
    return ranked.drop(columns="rank")


def headline_cases(rows: pd.DataFrame, benchmark: str, metric: str) -> pd.DataFrame:
    """One metric of the cases of any benchmark, with the settings of its own that they differ in, in words.

    Which of two numbers is the better one is not known here: cases come in the order of their settings.
    """
    frame = select(rows, benchmark)
    frame = frame[(frame["metric"] == metric) | (frame["status"] != "done")]
    keys = [*KEYS, "seed", "parameters"]
    wide = pivot(frame, [metric], keys).merge(_notes(frame, keys), on=keys, how="left")
    table = _chosen(wide, {metric: True}, n="n")
    return table.assign(settings=_differing(wide), note=wide["note"])


def _differing(cases: pd.DataFrame) -> list[str]:
    """Of each case the settings of its kind, and the seed, in which not all of them agree."""
    settings = [json.loads(text) for text in cases["parameters"]]
    settings = [
        {**own, "seed": int(seed)} if pd.notna(seed) else own
        for own, seed in zip(settings, cases["seed"], strict=True)
    ]
    values: dict[str, set[str]] = {}
    for own in settings:
        for name, value in own.items():
            values.setdefault(name, set()).add(json.dumps(value))
    return [
        clean(", ".join(f"{name}={value}" for name, value in own.items() if len(values[name]) > 1))
        for own in settings
    ]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a case, with all that was measured of it: noise, cost, training and throughput.

    Training and throughput are joined to the variances of the same problem, estimator and settings; where
    there are none, they have a line of their own, without a step.

    Returns:
        numbers, NaN where not measured: times in milliseconds a gradient (``milliseconds``) and in seconds of
        training (``training_seconds``), objectives in nats per datum, memory in bytes.
    """
    table = variance_cases(rows)
    seconds = [f"seconds{end}" for end in _ENDS]
    table[seconds] *= 1000
    table = table.rename(columns={name: f"milli{name}" for name in seconds})
    trained = convergence_cases(rows).rename(columns={name: f"training_{name}" for name in seconds})
    for other in (trained, throughput_cases(rows)):
        table = table.merge(other, on=_TIMELESS, how="outer", suffixes=("", "_other"))
        notes = zip(_texts(table["note"]), _texts(table.pop("note_other")), strict=True)
        table["note"] = [join(pair) for pair in notes]
    note = table.pop("note")
    return _best_first(ordered(table.assign(note=note)), "variance")


def join(parts: Iterable[str], by: str = "; ") -> str:
    """The parts that say something, each once."""
    return by.join(dict.fromkeys(clean(part) for part in parts if part))


def _chosen(wide: pd.DataFrame, metrics: Mapping[str, bool], n: str) -> pd.DataFrame:
    """Of a pivoted table the settings, values and intervals, and the first metric's n under this name."""
    keys = [key for key in KEYS if key in wide]
    values = [
        f"{m}{end}" for m, with_interval in metrics.items() for end in (_ENDS if with_interval else ("",))
    ]
    first = next(iter(metrics))
    return wide[[*keys, *values]].assign(**{n: wide[f"{first}_n"]})


def _best_first(table: pd.DataFrame, metric: str, ascending: bool = True) -> pd.DataFrame:
    """Sorted by a metric within the same settings, the wrong ones last; the settings stay in their order."""
    settings = [c for c in (*PANELS, "mode", "num_samples") if c in table]
    place = table.groupby(settings, dropna=False, sort=False).ngroup()
    value = table[metric] if ascending else -table[metric]
    wrong = table["bias_verdict"] == WRONG if "bias_verdict" in table else False
    by = pd.DataFrame({"place": place, "wrong": wrong, "value": value})
    return table.iloc[by.sort_values(list(by), kind="stable").index].reset_index(drop=True)


def _notes(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """For each case the warnings of its rows, and why it was skipped, failed or diverged."""
    said = [
        (reason and join([_NAMED_IN_NOTES.get(metric, ""), reason], ": "))
        if status == "done" or reason == NOT_TIMED
        else join([status, reason], ": ")
        for status, reason, metric in zip(frame["status"], frame["reason"], frame["metric"], strict=True)
    ]
    notes = frame[keys].assign(note=pd.Series(said, index=frame.index, dtype=object))
    return notes.groupby(keys, dropna=False, sort=False)["note"].agg(join).reset_index()


def _ends(case: pd.DataFrame) -> dict[str, float]:
    """Where the seeds of one training case ended."""
    diverged = set(case.loc[case["status"] == "diverged", "seed"])
    kept = case[~case["seed"].isin(diverged) & case["value"].notna()].sort_values("step", kind="stable")
    rates = case.loc[case["metric"] == "learning_rate", "value"].dropna()
    ends = {
        "steps": case["step"].max(),
        "seeds": case.loc[case["status"].isin(["done", "diverged"]), "seed"].nunique(dropna=False),
        "diverged": len(diverged),
        "learning_rate": rates.iloc[-1] if len(rates) else float("nan"),
    }
    for metric in _OVER_SEEDS:
        last = kept[kept["metric"] == metric].groupby("seed", dropna=False)["value"].last()
        if len(last):
            numbers = (float(number) for number in mean_interval(last.to_numpy()))
            ends |= zip((f"{metric}{end}" for end in _ENDS), numbers, strict=True)
    return ends


def _texts(column: pd.Series) -> pd.Series:
    """Text, "" where there is none; a column that holds none at all is one of floats."""
    return column.astype(object).where(column.notna(), "")
