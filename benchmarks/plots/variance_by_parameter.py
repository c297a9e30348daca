"""Where in the encoder the variance sits."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import negligible_note
from .panels import columns_for, split
from .sheet import sheet
from .style import INK, literal, themed
from .text import short_names
from .variance import METRIC
from .wide import PANELS, at_default_samples, normalized, ordered, without_negligible

_MOST = 14  # percentages that are legible side by side
_CASES = [*PANELS, "mode", "num_samples", "estimator"]


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Share of each encoder parameter tensor in the total variance, one heat map a problem and step."""
    frame, zero = without_negligible(_tensors(rows), "total")
    if frame.empty:
        return None
    frame = at_default_samples(frame)
    subtitle, panels = split(frame, [*PANELS[:-1], "num_samples", "step"])
    names = short_names(frame["estimator"], 32)
    columns = columns_for(panels, frame["step"].nunique())
    figure, grid = sheet(
        len(panels),
        columns,
        1.15 + 0.3 * frame.groupby("problem")["estimator"].nunique().max(),
        "Share of each encoder parameter in the variance of the gradient",
        subtitle,
        ["Each row adds up to 100%.", negligible_note(zero, "variance")],
    )
    for index, (panel, axes) in enumerate(zip(panels, grid, strict=True)):
        problem = panel.points["problem"].iloc[0]
        by_noise = frame[frame["problem"] == problem].sort_values("total", kind="stable")["estimator"]
        shares = panel.points.pivot_table(index="estimator", columns="parameter", values="share", sort=False)
        shares = shares[sorted(shares.columns, key=_layer_order)].reindex(dict.fromkeys(by_noise))
        _heat_map(axes, _largest(shares, _MOST // columns))
        same = index % columns and panels[index - 1].points["problem"].iloc[0] == problem
        axes.set_yticklabels([] if same else [literal(names[name]) for name in shares.index], rotation=0)
        axes.set_title(literal(panel.title))
    return figure


def _tensors(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each parameter tensor of each case, with the case's ``total`` and the tensor's ``share``."""
    frame = normalized(rows)
    kept = (frame["benchmark"] == "variance") & (frame["metric"] == METRIC) & (frame["parameter"] != "")
    kept &= (frame["status"] == "done") & frame["value"].notna()
    frame = ordered(frame[kept].drop_duplicates([*_CASES, "parameter"], keep="last"))
    total = frame.groupby(_CASES, dropna=False)["value"].transform("sum")
    return frame.assign(total=total, share=frame["value"] / total)


def _heat_map(axes: Axes, shares: pd.DataFrame) -> None:
    sns.heatmap(
        shares,
        ax=axes,
        vmin=0,
        vmax=1,
        cmap=sns.light_palette("#56B4E9", as_cmap=True),
        annot=True,
        fmt=".0%",
        annot_kws={"fontsize": 9},
        linewidths=1.5,
        cbar=False,
    )
    parameters = [literal(name) for name in short_names(shares.columns, 22).values()]
    axes.set_xticklabels(parameters, rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0, labelcolor=INK)
    axes.set(xlabel="", ylabel="")


def _layer_order(parameter: str) -> tuple[object, ...]:
    """From the input to the output, where layers are numbered; a weight before its bias."""
    layer, _, kind = parameter.rpartition(".")
    numbered = [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in layer.split(".")]
    return (numbered, kind != "weight", kind)


def _largest(shares: pd.DataFrame, most: int) -> pd.DataFrame:
    """The parameters with the largest shares, in their order, and the sum of the others."""
    if shares.shape[1] <= most:
        return shares
    kept = set(shares.max().nlargest(most - 1).index)
    others = [name for name in shares.columns if name not in kept]
    return shares.drop(columns=others).assign(**{f"{len(others)} others": shares[others].sum(axis=1)})
