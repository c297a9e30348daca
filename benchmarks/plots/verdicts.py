"""The verdicts of a certification at a glance: a line an estimator."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..rows.certificate import Certificate
from ..rows.certificate_text import percent
from ..rows.certificates import certificates
from ..rows.durations import duration
from ..rows.text import short_names
from .bias_axis import BiasLimits, bias_axis, bias_limits
from .sheet import Legend, sheet
from .style import FAINT, INK, literal, themed
from .verdict_styles import DECLARED, FAILS, HOLDS, NOT_SHOWN, VERDICTS, verdict_of

_ORDER = (FAILS, NOT_SHOWN, HOLDS, DECLARED)  # from the top
_COLUMN, _CHARACTER = 12.0, 5.4  # points between columns of text, and that a character takes


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Relative bias at the worst place: estimate and interval in the verdict's colour; checks and time."""
    found = certificates(rows)
    if not found:
        return None
    found = sorted(found, key=lambda c: (_ORDER.index(verdict_of(c)), -(c.bias_bound or 0.0)))
    first, names = found[0], short_names((c.estimator for c in found), 34)
    limits = bias_limits((c.bias_bound for c in found if c.bias_bound is not None), first.tolerance)
    shown = [verdict for verdict in VERDICTS if any(verdict_of(c) == verdict for c in found)]
    figure, (axes,) = sheet(
        1,
        1,
        1.05 + 0.235 * len(found),
        "Certified bias of the gradient estimate",
        "relative to the norm of the exact gradient, at the worst of all places · "
        f"{100 * first.confidence:g}% confidence",
        [
            "Bar: the interval; its right end is the bound. Marker: the estimate; on the dotted line, it "
            "is less than the axis shows.",
            f"Dashed: what is tolerated, {percent(first.tolerance)}.",
        ],
        Legend([_handle(verdict) for verdict in shown], list(shown)),
    )
    bias_axis(axes, "x", limits, exact="0", most=6)
    axes.axvline(first.tolerance, color=INK, linewidth=1.0, linestyle=(0, (5.0, 2.0)), zorder=2)
    for y, c in enumerate(reversed(found)):
        _line(axes, y, c, limits)
    _columns(axes, found[::-1])
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_yticks(range(len(found)), [literal(names[c.estimator]) for c in reversed(found)])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    return figure


def _line(axes: Axes, y: int, c: Certificate, limits: BiasLimits) -> None:
    """One estimator's interval and estimate."""
    verdict = verdict_of(c)
    style, bias = VERDICTS[verdict], c.bias
    if bias is None:
        said = f"{c.word}, bias not measured"
        axes.annotate(said, (limits.exact, y), va="center_baseline", fontsize=9, color=style.color)
        return
    ends = limits.place(bias.low), limits.place(bias.high)
    axes.hlines(y, *ends, color=style.color, linewidth=2.4, zorder=2.5)
    axes.plot([ends[1]], [y], marker="|", markersize=11, markeredgewidth=2.2, color=style.color, zorder=3)
    axes.plot(
        [limits.place(bias.estimate)],
        [y],
        marker=style.marker,
        markersize=6.5,
        markerfacecolor="white" if verdict == NOT_SHOWN else style.color,
        markeredgecolor=style.color,
        label=f"{c.estimator} {verdict}",
        zorder=3.5,
    )


def _columns(axes: Axes, found: Sequence[Certificate]) -> None:
    """To the right of the panel, from the bottom up: bias, checks, time; no empty columns."""
    columns = {
        "bias": [c.bias_in_short for c in found],
        "checks": [str(c.ran) for c in found],
        "failed": [str(len(c.failures) or "") for c in found],
        "proofs": [str(c.proofs or "") for c in found],
        "time": [duration(c.seconds) if c.seconds else "" for c in found],
    }
    right = 0.0
    for heading, texts in columns.items():
        if not any(texts):
            continue
        right += _COLUMN + _CHARACTER * max(len(text) for text in (heading, *texts))
        for y, text in enumerate([*texts, heading]):
            axes.annotate(
                text,
                (1.0, y - 0.1 * (text is heading)),
                xytext=(right, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center_baseline",
                fontsize=9,
                color=FAINT if text is not heading else INK,
                annotation_clip=False,
            )


def _handle(verdict: str) -> Line2D:
    style = VERDICTS[verdict]
    face = "white" if verdict == NOT_SHOWN else style.color
    return Line2D([], [], color=style.color, marker=style.marker, markerfacecolor=face)
