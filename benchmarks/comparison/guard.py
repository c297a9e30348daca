"""Conditions under which a comparison fails, such as ``variance>1.1``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...estimators.errors import UsageError
from .changes import METRICS

_FORM = re.compile(r"\s*([\w-]+)\s*([<>])\s*([^\s<>=]+)\s*")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """A metric whose change is above, or below, a limit: a ratio b / a, or a difference b − a in nats."""

    metric: str
    above: bool
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{'>' if self.above else '<'}{self.limit:g}"


def parse_condition(text: str) -> Condition:
    """``variance>1.1`` and the like.

    Raises:
        UsageError: not of this form, an unknown metric, or a limit that no ratio can be on both sides of.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"--fail-if {text!r}: expected METRIC>LIMIT or METRIC<LIMIT, such as 'variance>1.1'")
    metric, sign, limit = found.groups()
    if metric not in METRICS:
        raise UsageError(f"--fail-if {text!r}: no metric {metric!r}: choose from {', '.join(METRICS)}")
    if not _DECIMAL.fullmatch(limit) or not math.isfinite(float(limit)):
        raise UsageError(f"--fail-if {text!r}: {limit!r} is not a number")
    if METRICS[metric][1] == "ratio" and not float(limit) > 0:
        raise UsageError(f"--fail-if {text!r}: the change of {metric} is a ratio, its limit must be positive")
    return Condition(metric, sign == ">", float(limit))


def check_measured(table: pd.DataFrame, conditions: Sequence[Condition], before: str) -> None:
    """Raise UsageError for a condition on what was not measured before: it would guard nothing."""
    there = set(table.loc[table["verdict"] != "only after", "metric"])
    for condition in conditions:
        if condition.metric not in there:
            raise UsageError(f"--fail-if '{condition}': {condition.metric} was not measured in {before}")


def violations(table: pd.DataFrame, conditions: Sequence[Condition]) -> list[tuple[dict[str, Any], str]]:
    """The changes that meet a condition beyond doubt, and those that cannot be held against it; why.

    A change meets a condition where the whole of its interval does: a limit that the interval contains is not
    shown to be passed. What was measured in a and is not in b, or has no interval there, is no pass either,
    nor is a mean over seeds of which more diverged than before.
    """
    found = []
    for line in table.to_dict("records"):
        reasons = [
            _violated(line, condition) for condition in conditions if line["metric"] == condition.metric
        ]
        found += [(line, reason) for reason in dict.fromkeys(reasons) if reason]
    return found


def _violated(line: dict[str, Any], condition: Condition) -> str:
    if line["verdict"] == "only before":
        return "was measured before and is not any more"
    if line["verdict"] == "not compared":
        return f"{condition.metric} could not be compared: {line['reason']}"
    if line.get("b_lost", 0) > line.get("a_lost", 0):
        return f"{line['b_lost']:.0f} seeds diverged, {line['a_lost']:.0f} before"
    end = line["change_low" if condition.above else "change_high"]
    beyond = end > condition.limit if condition.above else end < condition.limit
    return str(condition) if beyond else ""
