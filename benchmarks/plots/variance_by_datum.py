"""How unequally the data of a batch share in the variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.notes import negligible_note
from ..rows.panels import columns_for, split
from ..rows.wide import PANELS, at_default, parts
from .axes import log_axis
from .sheet import legend_of, sheet
from .style import FAINT, Style, literal, styles_of, themed

METRIC = "variance_by_datum"
_LEAST = 1e-3  # of the mean share: what lies below does not stretch the axis


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Each datum's share of the variance over the mean share, the largest first; bands are 95% intervals.

    Every estimator has an order of its own. The axis is that of ranks, so that batches of any size compare.
    """
    points, zero = at_default(parts(rows, METRIC), "total")
    if points.empty:
        return None
    styles = styles_of(points["estimator"])
    subtitle, panels = split(points, [*PANELS[:-1], "num_samples", "step"])
    spread = {name: _curve(one)[1][0] for name, one in panels[0].points.groupby("estimator")}
    ranked = {n: styles[n] for n in sorted(styles, key=lambda n: -spread.get(n, 0.0))}
    equal = Line2D([], [], color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
    figure, grid = sheet(
        len(panels),
        columns_for(panels, points["step"].nunique()),
        3.7,
        "Share of each datum in the variance of the gradient",
        subtitle,
        [
            "Bands: 95% intervals of each share. Data are ordered for each estimator by itself.",
            negligible_note(zero, "variance"),
        ],
        legend_of(ranked, [(equal, "equal shares")]),
    )
    for panel, axes in zip(panels, grid, strict=True):
        _panel(axes, panel.points, ranked)
        axes.set_title(literal(panel.title))
        axes.set_xlabel("datum, by rank")
        axes.set_ylabel("share of the variance ÷ mean share")
    limits = [axes.get_ylim() for axes in grid]
    for axes in grid:
        log_axis(axes, "y", min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _curve(one: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank, share over mean share, and the ends of its interval, the largest first."""
    one = one.sort_values(METRIC, ascending=False, kind="stable")
    scale = one[METRIC].mean()
    share, low, high = (
        one[c].to_numpy(dtype=float) / scale for c in (METRIC, f"{METRIC}_low", f"{METRIC}_high")
    )
    return np.arange(1, len(one) + 1), share, low, high


def _panel(axes: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    shares = []
    for index, (name, style) in enumerate(styles.items()):
        one = points[points["estimator"] == name]
        if one.empty:
            continue
        rank, share, low, high = _curve(one)
        shares.append(share)
        every = max(1, len(rank) // 6)
        axes.plot(
            rank,
            share,
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            markevery=(int(index / len(styles) * every), every),
            markersize=5.5,
            label=name,
        )
        axes.fill_between(rank, np.maximum(low, 1e-300), high, color=style.color, alpha=0.16, linewidth=0)
    together = np.concatenate(shares)
    bottom, top = max(float(together[together > 0].min()), _LEAST), float(together.max())
    axes.axhline(1, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    axes.set_ylim(min(bottom, 0.8) / 1.3, max(top, 1.2) * 1.4)
    most = max(len(share) for share in shares)
    axes.set_xlim(1 - 0.02 * most, most * 1.02 + 0.02)
