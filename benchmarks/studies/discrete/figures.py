"""The figures of the comparison for discrete latents, drawn from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...plots.axes import intervals, log_axis, log_limits, markers, measured_ticks
from ...plots.labels import label_points
from ...plots.sheet import legend_of, sheet
from ...plots.style import FAINT, INK, Style, literal, save, styles_of, themed
from ...rows.text import short_names
from ...store import load_results
from .points import front, points_of
from .runs import BUDGETS, COST

_BUDGET = 16  # of the figures about one number of evaluations
_AVERAGED = (1, 4, 16, 64, 256)
_ABOVE = 1e4  # times the least error: what lies higher is not drawn
_LABEL = {"bernoulli": "Bernoulli", "categorical": "categorical"}


def draw_discrete(folder: Path) -> list[Path]:
    """Draw all figures that the rows of a run folder have something for, into its ``figures/``.

    Times are those of the run made for them, where it is beside this one.
    """
    cost = folder.parent / COST
    points = points_of(load_results(folder), load_results(cost) if cost.exists() else None)
    figures = {
        "error-vs-cost": error_vs_cost,
        "bias-vs-variance": bias_vs_variance,
        "error-vs-temperature": error_vs_temperature,
        "error-vs-size": error_vs_size,
    }
    drawn = {name: draw(points) for name, draw in figures.items()}
    return [
        save(figure, folder / "figures" / f"{name}.png")
        for name, figure in drawn.items()
        if figure is not None
    ]


@themed
def error_vs_cost(points: pd.DataFrame) -> Figure | None:
    """Mean squared error against milliseconds at 16 evaluations, with the Pareto fronts.

    A panel a problem and step. One front is of the unbiased estimators, whose error is their variance, one
    of all.
    """
    if points["problem"].nunique() > len(_LABEL):
        return None
    points = _at_one_budget(points[points["milliseconds"].notna()])
    panels = _panels(points)
    if not panels:
        return None
    seen = set.union(*(set(_shown(of_panel)["estimator"]) for _, of_panel in panels))
    styles = styles_of(seen)
    dashed = (0, (4, 2))
    sound = Line2D([], [], color=INK, linewidth=1.0)
    everyone = Line2D([], [], color=INK, linewidth=1.0, linestyle=dashed)
    figure, grid = sheet(
        len(panels),
        2,
        3.9,
        "Error of the gradient against its cost",
        f"at most {_BUDGET} evaluations of log p(x|z) a datum and estimate",
        [
            "Hollow: biased, its squared bias is part of the error.",
            _left_above(points),
            "Bars: 95% intervals.",
        ],
        legend_of(
            styles,
            [(sound, "Pareto front of the unbiased"), (everyone, "Pareto front of all")],
            lines=False,
        ),
    )
    for (title, of_panel), axes in zip(panels, grid, strict=True):
        shown = _shown(of_panel)
        low, high = log_limits(shown, "milliseconds")
        log_axis(axes, "x", low / 1.4, high * 1.9, most=6)
        log_axis(axes, "y", *log_limits(shown, "error", margin=1.6))
        axes.grid(False)
        for kept, style in ((shown[~shown["biased"]], "-"), (shown, dashed)):
            x, y = _steps(axes, front(kept))
            axes.plot(x, y, color=INK, linewidth=1.0, linestyle=style, alpha=0.6, zorder=1.5)
        for name, one in shown.groupby("estimator"):
            intervals(axes, "y", one["milliseconds"], one, "error", styles[name])
            intervals(axes, "x", one["error"], one, "milliseconds", styles[name])
            markers(axes, one["milliseconds"], one["error"], styles[name], name, one["biased"], size=7.0)
        axes.set_title(literal(title))
        axes.set_xlabel("processor time of a training-step gradient (ms)")
        axes.set_ylabel("mean squared error")
    for (_, of_panel), axes in zip(panels, grid, strict=True):
        shown = _shown(of_panel)
        named = pd.concat([front(shown[~shown["biased"]]), front(shown)]).drop_duplicates("estimator")
        places = list(zip(named["milliseconds"], named["error"], strict=True))
        label_points(figure, axes, places, _short(named["estimator"]))
    return figure


@themed
def bias_vs_variance(points: pd.DataFrame) -> Figure | None:
    """Squared bias against variance of the biased, and where they stop to pay.

    A line is where squared bias + variance/n is the variance of the best unbiased estimator over n: below it
    a biased one has the lower error when n estimates of each are averaged.
    """
    if points["problem"].nunique() > len(_LABEL):
        return None
    points = _at_one_budget(points)
    panels = _panels(points)
    biased = points[points["biased"] & points["squared_bias"].notna()]
    if biased.empty:
        return None
    styles = styles_of(points["estimator"])
    crossing = Line2D([], [], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    best = Line2D([], [], color=INK, linewidth=1.2)
    zero = Line2D([], [], color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    figure, grid = sheet(
        len(panels),
        2,
        3.9,
        "Squared bias against variance, and how long a biased estimator pays",
        f"at most {_BUDGET} evaluations of log p(x|z) a datum and estimate",
        [
            "Below the line of n a biased estimator has the lower mean squared error when n estimates are "
            "averaged, of it and of the least noisy unbiased one.",
            "Bars: 95% intervals.",
        ],
        legend_of(
            {name: styles[name] for name in sorted(set(biased["estimator"]))},
            [
                (best, "variance of the least noisy unbiased estimator"),
                (crossing, "squared bias + variance/n is its variance/n"),
                (zero, "squared norm of the gradient: the bias of 0"),
            ],
            lines=False,
        ),
    )
    for (title, of_panel), axes in zip(panels, grid, strict=True):
        shown = of_panel[of_panel["biased"]]
        sound = of_panel[~of_panel["biased"]]
        first = sound.loc[sound["variance"].idxmin()]
        norm = float(of_panel["squared_norm"].iloc[0])
        x = (min(shown["variance"].min(), first["variance"]), max(shown["variance"].max(), first["variance"]))
        seen = shown["squared_bias"][shown["squared_bias"] > 0]
        least = min(float(seen.min()) if len(seen) else norm, float(first["variance"]) / _AVERAGED[-1])
        log_axis(axes, "x", x[0] / 3, x[1] * 3, most=6)
        log_axis(axes, "y", least / 2, max(norm, shown["squared_bias"].max()) * 3, most=7)
        axes.grid(False)
        _crossings(axes, float(first["variance"]))
        axes.axvline(first["variance"], color=INK, linewidth=1.2, zorder=1.5)
        axes.axhline(norm, color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1.2)
        for name, one in shown.groupby("estimator"):
            intervals(axes, "y", one["variance"], one, "squared_bias", styles[name])
            y = one["squared_bias"].clip(lower=axes.get_ylim()[0])
            markers(axes, one["variance"], y, styles[name], name, False, size=7.0)
        axes.annotate(
            literal(str(first["estimator"])), (first["variance"], axes.get_ylim()[0]), xytext=(3, 4),
            textcoords="offset points", rotation=90, fontsize=8, color=INK, va="bottom",
        )  # fmt: skip
        axes.set_title(literal(title))
        axes.set_xlabel("variance, tr Cov(ĝ)")
        axes.set_ylabel("squared bias")
    for (_, of_panel), axes in zip(panels, grid, strict=True):
        shown = of_panel[of_panel["biased"]]
        y = shown["squared_bias"].clip(lower=axes.get_ylim()[0])
        label_points(figure, axes, list(zip(shown["variance"], y, strict=True)), _short(shown["estimator"]))
    return figure


def _crossings(axes: Axes, variance: float) -> None:

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x = np.geomspace(left, variance * (1 - 1e-6), 400)
    x = np.unique(np.concatenate([x, variance * (1 - np.geomspace(1e-6, 0.5, 200))]))
    for n in _AVERAGED:
        axes.plot(x, (variance - x) / n, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1.1)
        height = (variance - left) / n
        if low < height < high:
            axes.annotate(
                f"n = {n}", (left, height), xytext=(3, 2), textcoords="offset points", fontsize=8, color=FAINT
            )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


@themed
def error_vs_temperature(points: pd.DataFrame) -> Figure | None:
    """Variance, squared bias and their sum against the temperature, at one S."""
    tempered = points[points["temperature"].notna() & points["biased"]]
    tempered = tempered.assign(estimator=tempered["base"])
    if tempered.groupby(["problem", "estimator"])["temperature"].nunique().max() in (1, np.nan):
        return None
    if tempered.empty or tempered["temperature"].nunique() < 3:
        return None
    return _rows_of_panels(
        tempered,
        "temperature",
        [
            (_LABEL[family], "temperature τ", tempered[tempered["family"] == family])
            for family in dict.fromkeys(tempered["family"])
        ],
        "What temperature buys",
        f"S = {tempered['num_samples'].iloc[0]:.0f}, after {tempered['step'].iloc[0]:.0f} steps of training",
        {"variance": "variance, tr Cov(ĝ)", "squared_bias": "squared bias", "error": "mean squared error"},
    )


@themed
def error_vs_size(points: pd.DataFrame) -> Figure | None:
    """Error over the squared norm of the gradient against D, and against K, and the squared bias likewise."""
    if points["problem"].nunique() <= len(_LABEL):
        return None
    for metric in ("variance", "squared_bias", "error"):
        for end in ("", "_low", "_high"):
            points = points.assign(**{f"{metric}{end}": points[f"{metric}{end}"] / points["squared_norm"]})
    binary, others = (points[points["family"] == family] for family in _LABEL)
    by_size = [
        ("Bernoulli", "variables, D", binary.assign(size=binary["variables"])),
        ("categorical, three variables", "states, K", others.assign(size=others["states"])),
    ]
    return _rows_of_panels(
        points,
        "size",
        by_size,
        "What the number of variables and of states does",
        f"at most {BUDGETS[-1]} evaluations a datum and estimate, "
        f"after {points['step'].iloc[0]:.0f} steps of training",
        {"variance": "variance / ‖∇φ‖²", "squared_bias": "squared bias / ‖∇φ‖²"},
    )


def _rows_of_panels(
    points: pd.DataFrame,
    setting: str,
    columns: Sequence[tuple[str, str, pd.DataFrame]],
    title: str,
    subtitle: str,
    metrics: Mapping[str, str],
) -> Figure:
    """Lines over a setting: a row of panels a metric, a column a title, axis label and part of the points."""
    styles = styles_of(points["estimator"])
    figure, grid = sheet(
        len(metrics) * len(columns),
        len(columns),
        3.1,
        title,
        subtitle,
        ["Bars: 95% intervals. Left out: what is 1e5 times below the others, and a bias estimated as 0."],
        legend_of(styles),
    )
    for index, axes in enumerate(grid):
        metric, (name, label, of_column) = [*metrics][index // len(columns)], columns[index % len(columns)]
        of_column = of_column[of_column[metric] > 0]
        if metric == "squared_bias":
            of_column = of_column[of_column["biased"]]
        _lines(axes, of_column, setting, metric, styles)
        axes.set_title(literal(name))
        axes.set_xlabel(label)
        axes.set_ylabel(metrics[metric])
    return figure


def _lines(axes: Axes, points: pd.DataFrame, setting: str, metric: str, styles: dict[str, Style]) -> None:

    points = points[points[metric] > points[metric].median() * 1e-5]
    log_axis(axes, "y", *log_limits(points, metric))
    measured_ticks(axes, "x", points[setting])
    for name, one in points.groupby("estimator"):
        one, style = one.sort_values(setting), styles[name]
        axes.plot(one[setting], one[metric], color=style.color, linestyle=style.linestyle, zorder=2)
        intervals(axes, "y", one[setting], one, metric, style)
        markers(axes, one[setting], one[metric], style, name, one["biased"])


def _at_one_budget(points: pd.DataFrame) -> pd.DataFrame:
    """Those at one number of evaluations, of the objectives that are held against the ELBO's gradient."""
    return points[(points["budget"] == _BUDGET) & points["objective"].isin(["elbo", "relaxed"])]


def _panels(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A title and the points of every step (down) and problem (across)."""
    found = []
    for step in sorted(points["step"].unique()):
        for family in dict.fromkeys(points["family"]):
            when = "at the start" if step == 0 else f"after {step:,.0f} steps"
            of_panel = points[(points["step"] == step) & (points["family"] == family)]
            found.append((f"{_LABEL[family]}, {when}", of_panel))
    return found


def _shown(points: pd.DataFrame) -> pd.DataFrame:
    error = points["error"]
    return points[(error > 0) & (error < _ABOVE * error[error > 0].min())]


def _left_above(points: pd.DataFrame) -> str:
    left = [set(p["estimator"]) - set(_shown(p)["estimator"]) for _, p in _panels(points)]
    names = sorted(set.union(*left)) if left else []
    if not names:
        return ""
    return f"Left out of panels where above {_ABOVE:,.0f} times the least error: {', '.join(names)}."


def _short(names: pd.Series) -> list[str]:

    short = short_names(names, 26)
    return [short[name] for name in names]


def _steps(axes: Axes, points: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Corners of a front, from the top edge to the right one."""
    x, y = points["milliseconds"].tolist(), points["error"].tolist()
    return [*np.repeat(x, 2).tolist(), axes.get_xlim()[1]], [axes.get_ylim()[1], *np.repeat(y, 2).tolist()]
