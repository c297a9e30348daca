"""The verdict: a sentence or two on each problem, before the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from ...estimators.kl_weight import is_elbo
from ..rows.bias import DECLARED, UNCHECKED, WRONG, summary_of_bias
from ..rows.budget import leaders
from ..rows.certificates import certificates
from ..rows.text import describe, describe_shared, interval, number, say, shorten
from ..rows.throughput import rank_by, too_noisy
from .cells import Grid
from .lines import lines
from .runs import Run
from .verdict_table import Filter, filters, grid

_MOST = 3  # problems with a sentence of their own
_PLACE = ("latent_dim", "batch_size", "num_samples", "step", "objective")
Case = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What the page says first."""

    sentences: list[Markup]
    grid: Grid
    filters: list[Filter]


def verdict(runs: Sequence[Run]) -> Verdict:
    """The verdict on these runs."""
    tables = [lines(run.rows).assign(run=run.name) for run in runs]
    sentences: list[Markup] = []
    for run, table in zip(runs, tables, strict=True):
        said = [*_of_problems(table), *_of_budgets(run.rows), *_of_bias_and_checks(run.rows)]
        if len(runs) > 1 and said:
            said = [Markup("<b>{}</b>: {}").format(run.name, Markup(" ").join(said))]
        sentences += said
    cases = pd.concat(tables, ignore_index=True)
    return Verdict(sentences, grid(cases, len(runs) > 1), filters(cases))


def _of_budgets(rows: pd.DataFrame) -> list[Markup]:
    """How the order of training depends on what was spent."""
    found = leaders(rows)
    return [Markup.escape(one.sentence) for one in found] if len(found) <= _MOST else []


def _of_bias_and_checks(rows: pd.DataFrame) -> list[Markup]:
    return [*map(Markup.escape, summary_of_bias(rows)), *_of_checks(rows)]


def _of_problems(table: pd.DataFrame) -> list[Markup]:
    """Who gives the least variance for its time, and who trained best."""
    shown = table[table["default"]]
    problems = list(dict.fromkeys(shown["family"]))
    if len(problems) > _MOST:
        return _of_many(shown, problems)
    return [
        sentence for problem in problems for sentence in _of_one(table[table["family"] == problem], problem)
    ]


def _of_one(table: pd.DataFrame, problem: str) -> list[Markup]:
    shown = table[table["default"]]
    least = _least_work(shown, problem)
    trained = _trained(table, problem if least is None else "")
    if least is None and trained is None:
        fastest = _fastest(shown, problem)
        return [] if fastest is None else [fastest]
    return [sentence for sentence in (least, trained) if sentence is not None]


def _ranked(shown: pd.DataFrame, metric: str, ascending: bool = True) -> pd.DataFrame:
    """The noisy estimators of the objective that most share, the best first.

    None is one whose mean is wrong, and none that declares a bias is ranked by its variance.
    """
    found = shown[shown[metric].notna() & ~(shown["variance"] == 0) & (shown["bias_verdict"] != WRONG)]
    if metric in ("variance", "work_normalized_variance"):
        found = found[found["bias_verdict"] != DECLARED]
        counts = found["objective"].value_counts(sort=False)
        if len(counts) > 1:
            best = sorted(counts.index, key=lambda name: (-counts[name], not is_elbo(name), name))[0]
            found = found[found["objective"] == best]
    return found.sort_values(metric, ascending=ascending, kind="stable").drop_duplicates("estimator")


def _least_work(shown: pd.DataFrame, problem: str) -> Markup | None:
    """The estimator with the least variance × time, and by how much."""
    metric = "work_normalized_variance" if shown["work_normalized_variance"].gt(0).any() else "variance"
    what = "variance × time" if metric != "variance" else "variance"
    ranked = _ranked(shown, metric)
    if ranked.empty:
        return None
    first = ranked.iloc[0]
    said_of = describe if _several_objectives(shown) else describe_shared
    where = said_of({k: first[k] for k in _PLACE})
    place = Markup("On <code>{}</code>{}").format(problem, f" ({where})" if where else "")
    if len(ranked) == 1:
        said = interval(first[metric], first[f"{metric}_low"], first[f"{metric}_high"])
        unit = " s" if metric != "variance" else ""
        return Markup("{}, the {} of {} is {}{}.").format(place, what, _name(first), said, unit)
    second = ranked.iloc[1]
    unchecked = _unchecked(ranked)
    if _apart(first, second, metric):
        times = number(second[metric] / first[metric], 2)
        return Markup("{}, {} has the least {}, {} times below {}, the next{}.").format(
            place, _name(first), what, times, _name(second), unchecked
        )
    tied = [case for _, case in ranked.iterrows() if not _apart(first, case, metric)]
    names = Markup(", ").join(_name(case) for case in tied)
    return Markup("{}, the least {} is that of {}; their 95% intervals overlap{}.").format(
        place, what, names, unchecked
    )


def _unchecked(ranked: pd.DataFrame) -> str:
    """What is to be said where the means of some of those ranked were held against nothing."""
    count = int((ranked["bias_verdict"] == UNCHECKED).sum())
    if count == 0:
        return ""
    return f" (the bias of {f'{count} of them' if count < len(ranked) else 'each'} was not checked)"


def _trained(table: pd.DataFrame, problem: str) -> Markup | None:
    """Where training ended best."""
    metric = "heldout_objective"
    ranked = _ranked(table.assign(variance=float("nan")), metric, ascending=False)
    if len(ranked) < 2:
        return None
    first, others = ranked.iloc[0], ranked.iloc[1:]
    said = interval(first[metric], first[f"{metric}_low"], first[f"{metric}_high"])
    place = Markup("On <code>{}</code>, training").format(problem) if problem else Markup("Training")
    tied = [case for _, case in others.iterrows() if not _apart(first, case, metric)]
    tail: Markup = Markup("")
    if tied:
        names = Markup(", ").join(_name(case) for case in tied)
        tail = Markup("; its 95% interval overlaps with {}").format(names)
    return Markup("{} ended highest with {}: held-out objective {} nats a datum{}.").format(
        place, _name(first), said, tail
    )


def _fastest(shown: pd.DataFrame, problem: str) -> Markup | None:
    metric = "steps_per_second"
    shown = shown.assign(rank=rank_by(shown, metric))
    ranked = _ranked(shown[~too_noisy(shown, metric)], "rank", ascending=False)
    ranked = ranked[ranked[metric].notna()]
    if ranked.empty:
        return None
    first = ranked.iloc[0]
    tied = [case for _, case in ranked.iloc[1:].iterrows() if not _apart(first, case, metric)]
    if tied:
        names = Markup(", ").join(_name(case) for case in [first, *tied])
        return Markup(
            "On <code>{}</code>, the most training steps a second are those of {}; "
            "their 95% intervals overlap."
        ).format(problem, names)
    return Markup("On <code>{}</code>, {} makes the most training steps a second: {}.").format(
        problem, _name(first), number(first[metric])
    )


def _of_many(shown: pd.DataFrame, problems: list[str]) -> list[Markup]:
    """On how many problems which estimator has the least variance × time."""
    wins: dict[str, int] = {}
    objectives: set[str] = set()
    for problem in problems:
        ranked = _ranked(shown[shown["family"] == problem], "work_normalized_variance")
        if len(ranked) > 1:
            winner = ranked["estimator"].iloc[0]
            wins[winner] = wins.get(winner, 0) + 1
            objectives.add(ranked["objective"].iloc[0])
    if not wins:
        return []
    ordered = sorted(wins.items(), key=lambda pair: (-pair[1], pair[0]))
    said = Markup(", ").join(Markup("{} on {}").format(_name({"estimator": n}), k) for n, k in ordered[:5])
    among = ""
    if len(objectives) > 1:
        among = ", each within one objective"
    elif _several_objectives(shown) or not objectives <= {"elbo", ""}:
        among = f" ({say('objective', objectives.pop())})"
    return [Markup("Least variance × time over {} problems{}: {}.").format(sum(wins.values()), among, said)]


def _several_objectives(shown: pd.DataFrame) -> bool:
    """Whether it has to be said even of the ELBO that a comparison is about it."""
    return bool(shown.loc[shown["objective"] != "", "objective"].nunique() > 1)


def _of_checks(rows: pd.DataFrame) -> list[Markup]:
    """What certification and reproductions came to."""
    sentences = []
    found = certificates(rows)
    if found:
        failed = [c.estimator for c in found if c.holds is False]
        unclear = [c.estimator for c in found if c.holds is None]
        holds = len(found) - len(failed) - len(unclear)
        text = Markup("Certification: the claims of {} of {} estimators hold").format(holds, len(found))
        for names, word in ((failed, "fail"), (unclear, "not shown")):
            if names:
                said = Markup(", ").join(_name({"estimator": name}) for name in names)
                text += Markup("; {}: {}").format(word, said)
        sentences.append(text + ".")
    claims = rows[(rows["benchmark"] == "reproduce") & (rows["metric"] == "claim")]
    if len(claims):
        good = int((claims["value"] == 1).sum())
        sentences.append(
            Markup("{} of {} claims of {} published results hold.").format(
                good, len(claims), claims["problem"].nunique()
            )
        )
    return sentences


def _apart(one: Case, other: Case, metric: str) -> bool:
    """Whether the two intervals do not overlap; with an interval missing, whether the values differ."""
    low = max(_end(one, metric, "low"), _end(other, metric, "low"))
    high = min(_end(one, metric, "high"), _end(other, metric, "high"))
    return low > high


def _end(case: Case, metric: str, end: str) -> float:
    value = float(case[f"{metric}_{end}"])
    return float(case[metric]) if math.isnan(value) else value


def _name(case: Case) -> Markup:
    return Markup("<strong>{}</strong>").format(shorten(str(case["estimator"]), 60))
