"""The study as a page: the tables of each workload, and what they support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ...rows.budget import leaders
from ...rows.text import interval, number
from ...tables.cases import convergence_cases
from ...tables.markdown import code
from ...tables.targets import target_cases, typical
from .conclusions import at_equal_evaluations, biased_against_unbiased, in_two_workloads, rank_correlation
from .workloads import WORKLOADS

_HEAD = (
    "| estimator | S | learning rate | held-out objective | untuned | log-likelihood | reached "
    "| steps to target | restricted mean | seeds |"
)
_OTHERS = {one.name: one.other for one in WORKLOADS}


def page(found: Mapping[str, pd.DataFrame], figures: Mapping[str, Sequence[str]] | None = None) -> str:
    """Markdown.

    Args:
        found: name of a workload -> its rows.
        figures: name of a workload, or of a kind of latents -> files that are shown with it.
    """
    shown = figures or {}
    parts = ["# Convergence, fairly tuned: the runs", ""]
    for kind in dict.fromkeys(one.kind for one in WORKLOADS if one.name in found):
        parts += _images(f"{kind} latents, all workloads", shown.get(kind, ()))
    for name, rows in found.items():
        parts += [f"## {name}", "", *_table(rows), "", *(one.sentence for one in leaders(rows)), ""]
        parts += [*_correlation(rows), *_biased(rows), *_samples(rows)]
        other = _OTHERS.get(name, "")
        if other in found:
            parts += _optimizers(rows, other, found[other])
        parts += _images(name, shown.get(name, ()))
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: pd.DataFrame) -> list[str]:
    cases = convergence_cases(rows)
    times = typical(target_cases(rows)).set_index(["estimator", "num_samples"])
    lines = [_HEAD, "|---|" + "---:|" * (_HEAD.count("|") - 2)]
    for _, case in cases.iterrows():
        key = (case["estimator"], case["num_samples"])
        reached = steps = mean = ""
        if key in times.index:
            time = times.loc[key]
            reached = f"{time['reached']:.0f} of {time['runs']:.0f}"
            steps = number(time["steps"]) if time["steps"] < float("inf") else f"> {time['steps_budget']:.0f}"
            mean = number(time["steps_mean"])
        cells = [
            code(case["estimator"]),
            f"{case['num_samples']:.0f}",
            number(case["learning_rate"], 2),
            interval(*(case[f"heldout_objective{end}"] for end in ("", "_low", "_high"))),
            interval(*(case[f"untuned_objective{end}"] for end in ("", "_low", "_high"))),
            interval(*(case[f"heldout_log_likelihood{end}"] for end in ("", "_low", "_high"))),
            reached,
            steps,
            mean,
            f"{case['seeds'] - case['diverged']:.0f} of {case['seeds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _correlation(rows: pd.DataFrame) -> list[str]:
    found = rank_correlation(rows)
    if found is None:
        return []
    return [
        "Spearman's rank correlation of the variance at the checkpoint and the restricted mean of the steps "
        f"to the target: {interval(found.value, found.low, found.high)}, "
        f"over {found.estimators} unbiased estimators.",
        "",
    ]


def _biased(rows: pd.DataFrame) -> list[str]:
    lines = [
        f"- {code(one.one)} less {code(one.other)}: {interval(one.value, one.low, one.high)} nats, "
        f"p = {number(one.p_value, 2)}"
        for one in biased_against_unbiased(rows)
    ]
    return ["Biased estimators against the unbiased one that ended highest:", "", *lines, ""] if lines else []


def _optimizers(rows: pd.DataFrame, other: str, others: pd.DataFrame) -> list[str]:
    lines = [
        f"- {code(one.other)}: {interval(one.value, one.low, one.high)} nats, p = {number(one.p_value, 2)}"
        for one in in_two_workloads(rows, others)
    ]
    if not lines:
        return []
    return [f"The held-out objective at the end, less that of the same seeds in {other}:", "", *lines, ""]


def _images(title: str, files: Sequence[str]) -> list[str]:
    return [line for file in files for line in (f"![{title}: {Path(file).stem}]({file})", "")]


def _samples(rows: pd.DataFrame) -> list[str]:
    table = at_equal_evaluations(rows)
    if table["num_samples"].nunique() < 2:
        return []
    lines = ["| estimator | S | evaluations | objective |", "|---|---:|---:|---:|"]
    for _, line in table.iterrows():
        objective = interval(line["objective"], line["low"], line["high"])
        counts = f"{line['num_samples']} | {line['evaluations']:,.0f}"
        lines.append(f"| {code(line['estimator'])} | {counts} | {objective} |")
    return ["At equal evaluations of log p(x\\|z):", "", *lines, ""]
