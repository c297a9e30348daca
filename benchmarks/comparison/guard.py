"""Conditions under which a comparison fails, such as ``variance>1.1``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ...estimators.arguments import number
from ...estimators.errors import UsageError
from .changes import METRICS

_FORM = re.compile(r"\s*([\w-]+)\s*([<>])\s*(\S+)\s*")


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
        UsageError: not of this form, or an unknown metric.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"--fail-if {text!r}: expected METRIC>LIMIT or METRIC<LIMIT, such as 'variance>1.1'")
    metric, sign, limit = found.groups()
    if metric not in METRICS:
        raise UsageError(f"--fail-if {text!r}: no metric {metric!r}: choose from {', '.join(METRICS)}")
    try:
        return Condition(metric, sign == ">", number("limit", float(limit)))
    except ValueError:
        raise UsageError(f"--fail-if {text!r}: {limit} is not a number") from None


def violations(table: pd.DataFrame, conditions: Sequence[Condition]) -> list[tuple[dict[str, object], str]]:
    """The changes that meet a condition beyond doubt, and what was in a and is not in b, with the reason.

    A change meets a condition where the whole of its interval does: a limit that the interval contains is not
    shown to be passed.
    """
    found = []
    for line in table.to_dict("records"):
        for condition in conditions:
            if line["metric"] == condition.metric and (reason := _violated(line, condition)):
                found.append((line, reason))
    return found


def _violated(line: dict[str, object], condition: Condition) -> str:
    if line["verdict"] == "only before":
        return "was measured before and is not any more"
    end = float(str(line["change_low" if condition.above else "change_high"]))
    if math.isnan(end):
        return ""
    beyond = end > condition.limit if condition.above else end < condition.limit
    return str(condition) if beyond else ""
