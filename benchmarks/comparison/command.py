"""``elbograd compare A B``: print what changed, and whether a guard was passed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...estimators.errors import UsageError
from ..rows.bias import summary_of_bias
from ..rows.panels import split
from ..rows.text import clean, describe, number, shorten
from ..rows.wide import PANELS
from ..tables.choice import other_benchmarks
from .changes import DEFAULT_METRICS, METRICS, TIMES, changes
from .guard import check_measured, parse_condition, violations
from .sources import MACHINE, Source, differences, read_source, settings_that_differ

_HEADINGS = {
    "variance": "variance",
    "seconds": "time (s)",
    "work_normalized_variance": "var × s",
    "heldout_objective": "nats",
    "steps_per_second": "steps/s",
    "gradients_per_second": "gradients/s",
}
_SETTINGS = [*(setting for setting in PANELS if setting != "objective"), "num_samples", "mode"]
_STYLES = {
    "higher": "bold",
    "lower": "bold",
    "only before": "dim",
    "only after": "dim",
    "not compared": "dim",
    "negligible": "dim",
}
_COMPARED = ("higher", "lower", "no change shown", "identical")
_REST = ("only before", "only after", "not compared", "negligible")


def run_comparison(
    a: Path, b: Path, metrics: Sequence[str] = (), fail_if: Sequence[str] = (), every: bool = False
) -> bool:
    """Print what changed from run a to run b; whether it passes every condition of ``fail_if``.

    A condition is met where the whole interval of a change is beyond its limit. What cannot be held against a
    condition (gone, without an interval, more seeds diverged) does not pass it.

    Args:
        a: run folder, file of rows, or JSON file of a throughput run: before.
        b: the same, after.
        metrics: what to compare; () for the usual.
        fail_if: conditions such as ``variance>1.1``.
        every: print the comparisons that show no change too.

    Raises:
        UsageError: no results, nothing in common, an unknown metric or condition, or a condition on what was
            not measured before.
    """
    conditions = [parse_condition(text) for text in fail_if]
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(f"--metric {metric!r}: choose from {', '.join(METRICS)}")
    wanted = tuple(dict.fromkeys([*(metrics or DEFAULT_METRICS), *(c.metric for c in conditions)]))
    before, after = read_source(a), read_source(b)
    table = changes(before.rows, after.rows, wanted)
    both = table[~table["verdict"].isin(["only before", "only after"])]
    if both.empty and not (len(table) and conditions):
        why = "; ".join([_why_apart(table), *_incomparable(before, after)])
        raise UsageError(f"{a} and {b} have no measured case in common: {why}")
    check_measured(table, conditions, str(a))
    console = Console(width=max(Console().width, 80))
    for said in _environment_lines(before, after, both):
        console.print(Text(said))
    shown = table if every else table[table["verdict"].isin(["higher", "lower"])]
    for printed in _tables(shown):
        console.print(printed)
    for said in (
        *_incomparable(before, after),
        *_wrong(before, after),
        *_remarks(table),
        *_alone(table),
        _summary(table),
    ):
        console.print(Text(said))
    broken = violations(table, conditions)
    for case, reason in broken:
        console.print(Text(f"failed: {_name(case)}: {reason}"))
    return not broken


def _incomparable(a: Source, b: Source) -> list[str]:
    """Kinds of benchmark in either run whose numbers nothing here tells how to compare."""
    names = dict.fromkeys(name for side in (a, b) for name in other_benchmarks(side.rows))
    return [f"{name}: no comparison is known for this kind of benchmark" for name in names]


def _environment_lines(a: Source, b: Source, both: pd.DataFrame) -> list[str]:
    found = differences(a, b)
    lines = [f"{name} differs: {before} before, {after} after" for name, (before, after) in found.items()]
    for benchmark in dict.fromkeys(where for where, _ in METRICS.values()):
        settings = settings_that_differ(a, b, benchmark)
        lines += [f"{benchmark}: {name} {x} before, {y} after" for name, (x, y) in settings.items()]
    seeds = [sorted(set(side.rows["seed"].dropna())) for side in (a, b)]
    if all(seeds) and seeds[0] != seeds[1]:
        lines.append("the seeds differ, and so do data and weights: changes need not be of the code")
    known = {name for name in MACHINE if name in a.environment and name in b.environment}
    if not known:
        lines.append("where the runs were measured is not known of both")
    elif both["metric"].isin(TIMES).any() and any(name in found for name in MACHINE):
        lines.append("times of different machines: their changes say nothing about the code")
    elif both.loc[both["metric"].isin(TIMES), "verdict"].isin(["higher", "lower"]).any():
        lines.append("these intervals are of times within one run; between runs they vary more")
    return lines


def _tables(table: pd.DataFrame) -> list[Table]:
    if table.empty:
        return []
    settings = [setting for setting in _SETTINGS if setting in table]
    _, panels = split(table.assign(**{s: table[s] for s in settings}), settings)
    return [_table(panel.points) for panel in panels]


def _table(table: pd.DataFrame) -> Table:
    printed = Table(
        title=Text(_where(table.iloc[0].to_dict()), style="bold not italic"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    printed.add_column("estimator", overflow="ellipsis", min_width=12)
    for heading in ("metric", "before", "after", "change", ""):
        printed.add_column(heading, no_wrap=True, justify="left" if heading in ("metric", "") else "right")
    for line in table.to_dict("records"):
        change = _interval(line["change"], line["change_low"], line["change_high"])
        if line["kind"] == "ratio" and change:
            change = f"× {change}"
        cells = (
            shorten(str(line["estimator"]), 40),
            _HEADINGS[line["metric"]],
            number(line["a"]),
            number(line["b"]),
            change,
            f"{line['verdict']}{' *' if _few(line) else ''}",
        )
        style = _STYLES.get(str(line["verdict"]), "")
        printed.add_row(*(Text(cell, no_wrap=True, style=style) for cell in cells))
    return printed


def _interval(value: float, low: float, high: float) -> str:
    """With the digits that its narrower side warrants: ratios are skewed, and that end tells the verdict."""
    if not low < high:
        return number(value)
    narrow = min(value - low, high - value)
    digits = 2
    if 0 < narrow < math.inf and 0 < abs(value) < math.inf:
        # As in tables: a half-width of 1 or 2 units in its first digit deserves a second one.
        digits += math.floor(math.log10(abs(value))) - math.floor(math.log10(narrow / 3)) - 1
    digits = min(max(digits, 2), 6)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def _summary(table: pd.DataFrame) -> str:
    count = table["verdict"].value_counts()
    compared = sum(count.get(v, 0) for v in _COMPARED)
    words = [f"{count[v]} {v}" for v in _COMPARED if v in count]
    rest = [f"{count[v]} {v}" for v in _REST if v in count]
    said = f"{compared} compared, at 95% for all at once: {', '.join(words) or 'none'}"
    return "; ".join([said, *rest])


def _wrong(before: Source, after: Source) -> list[str]:
    """Which estimators' means are wrong in either run: their variances are compared, and mean nothing."""
    sides = (("before", before), ("after", after))
    return [f"{when}: {line}" for when, side in sides for line in summary_of_bias(side.rows)]


def _remarks(table: pd.DataFrame) -> list[str]:
    """What keeps a comparison from being trusted, or from being made."""
    lines = []
    few = table[(table["a_few"] == 1) | (table["b_few"] == 1)].drop_duplicates("estimator")
    if len(few):
        names = "; ".join(f"{shorten(str(e['estimator']), 40)} ({_few(e)})" for e in few.to_dict("records"))
        lines.append(f"* not enough replicates, the interval is not to be trusted: {names}")
    apart = table[table["verdict"] == "not compared"]
    for (metric, reason), cases in apart.groupby(["metric", "reason"], sort=False):
        which = "; ".join(dict.fromkeys(shorten(str(name), 40) for name in cases["estimator"]))
        lines.append(f"not compared: {_HEADINGS[str(metric)]} of {which}: {reason}")
    for case in table.to_dict("records"):
        if case["a_lost"] != case["b_lost"] and case["verdict"] in (*_COMPARED, "not compared"):
            lost = f"{case['a_lost']:.0f} seeds diverged before, {case['b_lost']:.0f} after"
            lines.append(f"{_name(case)}: {lost}")
    return lines


def _few(line: dict[str, Any]) -> str:
    return " and ".join(when for when, side in (("before", "a"), ("after", "b")) if line[f"{side}_few"] == 1)


def _name(line: dict[str, Any]) -> str:
    return f"{clean(str(line['estimator']))}, {_where(line)}"


def _alone(table: pd.DataFrame) -> list[str]:
    """What was measured on one side only: whole settings, and estimators where others are on both sides."""
    lines = []
    places = pd.Series([_where(line) for line in table.to_dict("records")], index=table.index, dtype="object")
    met = set(places[~table["verdict"].isin(["only before", "only after"])])
    for verdict in ("only before", "only after"):
        one_sided = table["verdict"] == verdict
        lines += [f"{verdict}: all of {place}" for place in places[one_sided].unique() if place not in met]
        alone = table[one_sided & places.isin(met)].drop_duplicates(["estimator", "metric"])
        named = [
            f"{shorten(str(name), 40)} ({', '.join(_HEADINGS[m] for m in part['metric'])})"
            for name, part in alone.groupby("estimator", sort=False)
        ]
        lines += [f"{verdict}: {'; '.join(named)}"] if named else []
    return lines


def _where(line: dict[str, Any]) -> str:
    return describe({setting: line[setting] for setting in _SETTINGS if setting in line})


def _why_apart(table: pd.DataFrame) -> str:
    if table.empty:
        return "nothing to compare was measured in either"
    settings = [s for s in (*_SETTINGS, "estimator", "metric") if s in table]
    sides = [table[table["verdict"] == verdict] for verdict in ("only before", "only after")]
    values = {s: [set(side[s].dropna()) for side in sides] for s in settings}
    apart = [s for s, (before, after) in values.items() if before and after and not before & after]
    return f"they differ in {', '.join(apart)}" if apart else "no case has the same settings in both"
