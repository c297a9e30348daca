"""Where in the encoder the variance sits: by layer, and by part of what the encoder emits."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rows.notes import negligible_note, unit, warnings_note
from ..rows.panels import split
from ..rows.text import percent, short_names
from ..rows.wide import KEYS, PANELS, at_default, parts
from .axes import intervals, log_axis, log_limits, markers
from .sheet import legend_of, sheet
from .style import FAINT, GRID, Style, literal, styles_of, themed

LAYERS, ETA = "variance_by_layer", "eta_variance"
_MOST = 6  # layers that are legible in a panel


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Variance of each encoder layer (left) and of each part of η = (μ, log σ), say (right), with intervals.

    Numbers beside the points are shares of the column's sum. A row of panels is a problem and step.
    """
    layers, zero = _points(rows, LAYERS)
    if layers.empty:
        return None
    eta, _ = _points(rows, ETA)
    by = [*PANELS[:-1], "num_samples", "step"]
    subtitle, panels = split(layers, by)
    order = layers.groupby("estimator")[LAYERS].sum().sort_values().index
    styles = {name: styles_of(layers["estimator"])[name] for name in order}
    shown, hidden = _largest(layers)
    groups = max(shown.groupby("problem")["parameter"].nunique().max(), _most_parts(eta))
    columns = 2 if len(eta) else 1
    figure, grid = sheet(
        columns * len(panels),
        columns,
        0.85 + groups * (0.155 * len(styles) + 0.1),
        "Where the variance sits: encoder layers, and what the encoder emits",
        subtitle,
        [
            "Bars: 95% intervals; in percent, the share of the layer or part.",
            f"Not drawn: {hidden} layers of less variance." if hidden else "",
            "Right: variance of one datum's gradient in η, averaged over the batch." if len(eta) else "",
            warnings_note(layers, LAYERS),
            negligible_note(zero, "variance"),
        ],
        legend_of(styles, lines=False),
    )
    for index, panel in enumerate(panels):
        here = panel.points[by].drop_duplicates()
        left, right = grid[columns * index], grid[columns * index + 1] if columns == 2 else None
        of_layers = shown.merge(here, on=by)
        _panel(left, of_layers, shown, LAYERS, styles, "layer ")
        left.set_title(literal(panel.title))
        left.set_xlabel(f"variance of the layer's gradient{unit(rows, LAYERS)}")
        if right is not None:
            of_eta = eta.merge(here, on=by)
            if of_eta.empty:
                right.remove()
                continue
            _panel(right, of_eta, eta, ETA, styles, "")
            right.set_xlabel(f"variance of the gradient in η{unit(rows, ETA)}")
    return figure


def _points(rows: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """The parts at the default settings, with each part's ``share`` of its case; who is left out."""
    found, zero = at_default(parts(rows, metric), "total")
    total = found.groupby(KEYS, dropna=False)[metric].transform("sum")
    return found.assign(share=found[metric] / total), zero


def _largest(layers: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Of each problem the layers with the largest share anywhere, in their order; how many were left out."""
    kept, hidden = [], 0
    for _, of_problem in layers.groupby("problem", sort=False):
        largest = of_problem.groupby("parameter")["share"].max().nlargest(_MOST).index
        hidden = max(hidden, of_problem["parameter"].nunique() - len(largest))
        kept.append(of_problem[of_problem["parameter"].isin(largest)])
    return pd.concat(kept), hidden


def _most_parts(eta: pd.DataFrame) -> int:
    return int(eta.groupby("problem")["parameter"].nunique().max()) if len(eta) else 0


def _panel(
    axes: Axes, points: pd.DataFrame, every: pd.DataFrame, metric: str, styles: dict[str, Style], prefix: str
) -> None:
    """Parts from top to bottom in the encoder's order; within each the estimators, the least noisy on top."""
    of_problem = every[every["problem"] == points["problem"].iloc[0]]
    log_axis(axes, "x", *log_limits(of_problem, metric), most=6)
    names = list(dict.fromkeys(of_problem["parameter"]))
    height = len(styles) + 1
    ends = len(names) * height
    for row_, name in enumerate(names):
        top = ends - row_ * height - 1
        for place, (estimator, style) in enumerate(styles.items()):
            one = points[(points["parameter"] == name) & (points["estimator"] == estimator)]
            if one.empty:
                continue
            y = [top - place] * len(one)
            intervals(axes, "x", y, one, metric, style, width=2.0)
            markers(axes, one[metric], y, style, estimator, one[f"{metric}_reason"] != "", size=5.5)
            axes.annotate(
                percent(one["share"].iloc[0]),
                (1.01, y[0]),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=9,
                color=FAINT,
            )
        if row_:
            axes.axhline(top + 1, color=GRID, linewidth=0.9)
    axes.set_ylim(-0.2, ends)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    middle = [ends - (row_ + 0.5) * height for row_ in range(len(names))]
    axes.set_yticks(middle, [literal(prefix + short) for short in short_names(names, 16).values()])
