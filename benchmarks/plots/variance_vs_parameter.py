"""How the variance changes with a number in the problem, such as the roughness k of a cost."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import Specification, parse
from ..rows.wide import PANELS, at_swept_samples, measured, without_negligible
from .scaling import draw_against
from .style import themed
from .variance import METRIC


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance against a parameter of the problem at one S, log–log, where nothing else in it differs."""
    points, zero = without_negligible(measured(rows, "variance", [METRIC]), METRIC)
    points = _swept(points)
    if points.empty:
        return None
    names = sorted(set(points["swept"]))
    return draw_against(
        rows,
        at_swept_samples(points, "swept_value"),
        zero,
        "swept_value",
        [*PANELS, "num_samples"],
        "Variance of the gradient against a parameter of the problem",
        names[0] if len(names) == 1 else "the problem's parameter",
    )


def _swept(points: pd.DataFrame) -> pd.DataFrame:
    """The points of problems that differ in one positive number, which is taken out of their names.

    Adds the columns ``swept``, its name, and ``swept_value``.
    """
    kept = []
    parsed = {problem: _parse(problem) for problem in points["problem"].unique()}
    for name in dict.fromkeys(one.name for one in parsed.values() if one is not None):
        family = {problem: one for problem, one in parsed.items() if one is not None and one.name == name}
        keys = {key for one in family.values() for key in one.parameters}
        differing = [k for k in keys if len({str(one.parameters.get(k)) for one in family.values()}) > 1]
        if differing in ([], ["latent_dim"]) or len(differing) > 1:
            continue
        (key,) = differing
        values = {problem: one.parameters.get(key) for problem, one in family.items()}
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values.values()):
            continue
        some = next(iter(family.values()))
        rest = Specification(name, {k: v for k, v in some.parameters.items() if k != key})
        of_family = points[points["problem"].isin(list(family))]
        kept.append(
            of_family.assign(
                swept=key, swept_value=of_family["problem"].map(values).astype(float), problem=str(rest)
            )
        )
    return pd.concat(kept, ignore_index=True) if kept else points.iloc[:0]


def _parse(problem: str) -> Specification | None:
    try:
        return parse(problem)
    except UsageError:
        return None
