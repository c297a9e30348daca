"""What stands under and beside a figure: units, warnings, who is left out."""

from __future__ import annotations

import pandas as pd

_ABOUT = "\N{NO-BREAK SPACE}≈\N{NO-BREAK SPACE}"


def unit(rows: pd.DataFrame, metric: str) -> str:
    """The unit of a metric in brackets, where the rows agree on one."""
    units = set(rows.loc[rows["metric"] == metric, "unit"].dropna()) - {""}
    return f" ({units.pop()})" if len(units) == 1 else ""


def warnings_note(points: pd.DataFrame, metric: str) -> str:
    """What the hollow markers mean, or "" where there are none."""
    reasons = [reason for reason in points[f"{metric}_reason"] if reason]
    if not reasons:
        return ""
    said = list(dict.fromkeys(reason.partition(" (")[0] for reason in reasons))
    return f"Hollow marker: {'; '.join(said[:3])}."


def negligible_note(estimators: list[str], metric: str) -> str:
    """Which estimators a logarithmic axis cannot show."""
    return f"Not drawn, {metric}{_ABOUT}0: {', '.join(estimators)}." if estimators else ""
