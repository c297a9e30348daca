"""How it was measured: environment, warnings, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import tomli_w

from ..rows.text import clean, shorten
from ..rows.wide import normalized
from .cells import Cell, Grid, Heading, Line
from .runs import Run

_WORDS = {
    "commit": "commit",
    "python": "Python",
    "platform": "platform",
    "cpu": "CPU",
    "cpu_count": "CPU cores",
    "threads": "threads of torch",
    "case_threads": "threads a case",
    "gpu": "GPU",
    "cuda": "CUDA",
}


@dataclass(frozen=True)
class Provenance:
    """Where one run comes from.

    Attributes:
        run: its name.
        command: as it was given.
        facts: name -> value, machine and commit.
        packages: name -> version.
        config: its settings, as TOML.
        remarks: what could not be read.
    """

    run: str
    command: str
    facts: dict[str, str]
    packages: dict[str, str]
    config: str
    remarks: tuple[str, ...]


def provenance(run: Run) -> Provenance:
    """Where a run comes from, as far as its folder tells."""
    told = run.environment
    packages = told.get("packages")
    facts = {
        _WORDS.get(key, key): _said(value)
        for key, value in told.items()
        if key not in ("command", "packages", "earlier")
    }
    facts["rows"] = f"{len(run.rows)}, of schema version {run.rows['schema_version'].iloc[0]}"
    return Provenance(
        run.name,
        str(told.get("command") or ""),
        facts,
        {str(k): _said(v) for k, v in packages.items()} if isinstance(packages, dict) else {},
        tomli_w.dumps(run.config) if run.config else "",
        (*run.remarks, *_earlier(told)),
    )


def _earlier(told: dict[str, Any]) -> list[str]:
    """In which environments other than the one described some rows were measured, a sentence each."""
    before = told.get("earlier")
    sentences = []
    for other in [e for e in before if isinstance(e, dict)] if isinstance(before, list) else []:
        then, now = _flat(other), _flat(told)
        changed = [key for key in then | now if then.get(key) != now.get(key)]
        said = ", ".join(f"{_WORDS.get(key, key)} {_said(then.get(key))}" for key in changed)
        if said:
            sentences.append(f"Some rows were measured in an earlier session: {shorten(said, 400)}.")
    return sentences


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    """What tells two environments apart, versions of packages among it."""
    facts = {k: v for k, v in environment.items() if k not in ("command", "packages", "earlier")}
    packages = environment.get("packages")
    return {**facts, **packages} if isinstance(packages, dict) else facts


def _said(value: Any) -> str:
    return "not known" if value is None else clean(value if isinstance(value, str) else json.dumps(value))


def differences(runs: Sequence[Run]) -> list[str]:
    """On which machines or versions the runs differ, a sentence each."""
    if len(runs) < 2:
        return []
    facts = [{**p.facts, **p.packages} for p in map(provenance, runs)]
    names = dict.fromkeys(name for fact in facts for name in fact if name != "rows")
    differing = [name for name in names if len({fact.get(name) for fact in facts}) > 1]
    if not differing:
        return []
    said = ", ".join(differing)
    return [f"The runs differ in {said}: their timings need not be comparable."]


def warnings(runs: Sequence[Run]) -> Grid | None:
    """The warnings that go with values, each with how many cases have it; None where there is none."""
    found: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for run in runs:
        frame = normalized(run.rows)
        frame = frame[(frame["status"] == "done") & (frame["reason"] != "")]
        frame = frame[~frame["benchmark"].isin(["certify", "reproduce"])]
        for case in frame.drop_duplicates([*_CASE, "metric", "reason"]).to_dict("records"):
            for reason in str(case["reason"]).split("; "):
                head, _, least = reason.partition(" (at least ")
                needed = float(digits) if (digits := least.rstrip(")")).isdigit() else float("nan")
                key = (run.name, case["benchmark"], case["metric"], head)
                found.setdefault(key, []).append((str(case["estimator"]), needed))
    if not found:
        return None
    several = len(runs) > 1
    lines = []
    for (run_name, benchmark, metric, head), cases in sorted(found.items(), key=lambda item: _rank(*item)):
        needed = max((n for _, n in cases if n == n), default=float("nan"))
        names = pd.Series([name for name, _ in cases]).value_counts()
        said = ", ".join(f"{shorten(str(name), 48)} ({count})" for name, count in names.items())
        cells = [
            *([Cell(run_name)] if several else []),
            Cell(head),
            Cell(f"{benchmark}: {metric}"),
            Cell(str(len(cases)), float(len(cases))),
            Cell("" if needed != needed else f"{needed:.0f}", needed),
            Cell(said),
        ]
        lines.append(Line(cells, {"run": run_name}))
    headings = [
        *([Heading("run")] if several else []),
        Heading("warning"),
        Heading("of"),
        Heading("cases", number=True),
        Heading("needed", "The most that any of these cases asks for.", number=True),
        Heading("estimators (cases)"),
    ]
    return Grid("warnings", "Warnings", headings, lines)


def _rank(key: tuple[str, ...], cases: Sequence[object]) -> tuple[bool, int]:
    """What is about the whole gradient first, then what concerns most cases."""
    return key[2] != "variance", -len(cases)


_CASE = [
    "problem",
    "estimator",
    "num_samples",
    "batch_size",
    "latent_dim",
    "step",
    "mode",
    "parameter",
    "seed",
]
_LOST = ("failed", "diverged", "skipped")


def missing(runs: Sequence[Run]) -> Grid | None:
    """The cases that failed, diverged or were skipped, with the reasons; None where every case is done."""
    several, lines = len(runs) > 1, []
    for run in runs:
        frame = normalized(run.rows)
        frame = frame[frame["status"].isin(_LOST) & (frame["benchmark"] != "reproduce")]
        frame = frame.assign(order=frame["status"].map(_LOST.index))
        by = ["order", "status", "benchmark", "estimator", "problem", "reason"]
        for key, cases in frame.groupby(by, sort=True, dropna=False):
            _, status, benchmark, estimator, problem, reason = key
            samples = [f"{s:.0f}" for s in sorted(cases["num_samples"].dropna().unique())]
            count = cases.drop_duplicates(_CASE)
            cells = [
                *([Cell(run.name)] if several else []),
                Cell(str(status)),
                Cell(str(benchmark)),
                Cell(shorten(str(estimator), 60)),
                Cell(shorten(str(problem), 60)),
                Cell(", ".join(samples)),
                Cell(str(len(count)), float(len(count))),
                Cell(clean(str(reason)) or "no reason given"),
            ]
            lines.append(Line(cells, {"run": run.name, "estimator": str(estimator)}))
    if not lines:
        return None
    headings = [
        *([Heading("run")] if several else []),
        Heading("status"),
        Heading("benchmark"),
        Heading("estimator", name=True),
        Heading("problem", name=True),
        Heading("S"),
        Heading("cases", number=True),
        Heading("reason"),
    ]
    return Grid("missing", "Cases that failed, diverged or were skipped", headings, lines)
