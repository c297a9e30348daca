"""Which cases go together: one panel, or one table, for each of the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from .text import constants, describe, describe_shared
from .wide import family


class Panel(NamedTuple):
    """One panel's title and points."""

    title: str
    points: pd.DataFrame


def split(points: pd.DataFrame, by: Sequence[str]) -> tuple[str, list[Panel]]:
    """Points that differ in the settings ``by`` go to panels of their own.

    Returns:
        the settings that all share, in words, and the panels, titled by those that differ.
    """
    named = points.assign(problem=_names(points))
    shared = constants(named, by)
    panels = []
    for _, group in points.groupby(list(by), dropna=False, sort=False):
        settings = named.loc[group.index[0], list(by)].to_dict()
        differing = {c: v for c, v in settings.items() if c not in shared}
        panels.append(Panel(describe(differing), group.reset_index(drop=True)))
    return describe_shared(shared), panels


def _names(points: pd.DataFrame) -> pd.Series:
    """The problems, without the latent dimension where that is a setting of its own."""
    if "latent_dim" not in points:
        return points["problem"]
    return points["problem"].map(family).where(points["latent_dim"].notna(), points["problem"])


def columns_for(panels: Sequence[Panel], steps: int) -> int:
    """Panels side by side: one column a training step where that fills the sheet, else two."""
    if len(panels) == 1:
        return 1
    return steps if 1 < steps <= 3 and len(panels) % steps == 0 else 2
