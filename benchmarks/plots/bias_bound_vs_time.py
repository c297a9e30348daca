"""What each corner of a certificate cost, and the bound on the bias that was reached there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ..rows.certificate import Certificate
from ..rows.certificate_checks import Check
from ..rows.certificate_kinds import IN_MANY_DIMENSIONS, Place, kinds_of
from ..rows.certificate_text import percent
from ..rows.certificates import certificates
from ..rows.text import short_names
from .axes import log_axis
from .bias_axis import BiasLimits, bias_axis, bias_limits
from .sheet import Legend, sheet
from .style import INK, Style, literal, themed
from .verdict_styles import FAILS, VERDICTS

_MOST_PANELS = 12  # with more estimators the panels are the kinds of corners
_USUAL = "elsewhere"
# Kind of corner -> style; a point in several is drawn as the first of them.
_CORNERS = {
    "float32": Style("#E69F00", "^", "-"),
    "train mode": Style("#CC79A7", "v", "-"),
    "D of 4 or more": Style("#0072B2", "D", "-"),
    "B of 4 or more": Style("#56B4E9", "s", "-"),
    "S above 8": Style("#009E73", "P", "-"),
    "odd S above 1": Style("#8C5A2B", "h", "-"),
    _USUAL: Style("#767676", "o", "-"),
}


class _Point(NamedTuple):
    """A place of a certificate: what it took, what bound was reached, and whether anything failed."""

    seconds: float
    bound: float
    corner: str
    exact: bool
    failed: bool


@themed
def draw(rows: pd.DataFrame) -> Figure | None:
    """Bound on the relative bias against seconds, a point for each problem, point, S, B, type and mode."""
    certified = [c for c in certificates(rows) if c.seconds > 0]
    found = [c for c in certified if c.unbiased]
    points = {c.estimator: _points(c) for c in found}
    points = {name: some for name, some in points.items() if some}
    if not points:
        return None
    everything = [point for some in points.values() for point in some]
    panels = _panels(points)
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    limits, tolerance = bias_limits((p.bound for p in everything), found[0].tolerance), found[0].tolerance
    seconds = [p.seconds for p in everything]
    each = f" · {len(points)} estimators" if len(points) > _MOST_PANELS else ""
    figure, grid = sheet(
        len(panels),
        columns,
        {1: 4.4, 2: 3.0, 3: 2.3}[columns],
        "Bound on the bias against the time it took",
        f"relative to the norm of the exact gradient · {100 * found[0].confidence:g}% confidence{each}",
        [
            "A point for each problem, point in η-space, S, B, floating-point type and mode.",
            f"Dashed: what is tolerated, {percent(tolerance)}.",
            _below(everything, limits)[1],
            _left_out([c.estimator for c in certified if not c.unbiased]),
        ],
        _legend(everything),
    )
    below = _below(everything, limits)[0]
    for index, (axes, (title, some)) in enumerate(zip(grid, panels.items(), strict=True)):
        log_axis(axes, "x", min(seconds) / 1.6, max(seconds) * 1.6, most=5)
        bias_axis(axes, "y", limits, below)
        _panel(axes, some, tolerance, limits)
        axes.set_title(literal(title))
        lowest, leftmost = index >= len(panels) - columns, index % columns == 0
        axes.set_xlabel("seconds" if lowest else "")
        axes.set_ylabel("bound on the bias" if leftmost else "")
        for axis, labelled in ((axes.xaxis, lowest), (axes.yaxis, leftmost)):
            if not labelled:
                axis.set_major_formatter(NullFormatter())
    return figure


def _below(points: Sequence[_Point], limits: BiasLimits) -> tuple[str, str]:
    """What stands below the axis, in a word and in a sentence; empty where nothing does."""
    small = any(p.bound < limits.low and not p.exact for p in points)
    exact = any(p.exact for p in points)
    proofs = "all that can be drawn was gone through"
    if small and exact:
        return "less", f"Less: than the axis shows, or {proofs}."
    if small:
        return "less", "Less: than the axis shows."
    return ("exact", f"Exact: {proofs}.") if exact else ("", "")


def _panels(points: dict[str, list[_Point]]) -> dict[str, list[_Point]]:
    """Title -> points: a panel an estimator; of many estimators a panel a kind of corner."""
    if len(points) <= _MOST_PANELS:
        names = short_names(points, 30 if len(points) > 4 else 44)
        return {names[name]: some for name, some in points.items()}
    everything = [point for some in points.values() for point in some]
    of = {corner: [p for p in everything if p.corner == corner] for corner in _CORNERS}
    return {corner: some for corner, some in of.items() if some}


def _left_out(estimators: list[str]) -> str:
    return f"Not drawn, biased as declared: {', '.join(estimators)}." if estimators else ""


def _points(c: Certificate) -> list[_Point]:
    """The places of a certificate that took a known time and have a bound, or failed."""
    places: dict[tuple[str, str, Place], list[Check]] = {}
    for check in c.checks:
        if check.problem:
            where = Place(check.problem, check.num_samples, check.batch_size, check.dtype, check.mode)
            places.setdefault((check.problem, check.point, where), []).append(check)
    points = []
    for (_, _, where), checks in places.items():
        seconds = sum(check.seconds for check in checks)
        bounds = [check.bias.high for check in checks if check.bias is not None and check.name != "elbo-bias"]
        failed = any(check.holds is False for check in checks)
        if seconds > 0 and (bounds or failed):
            exact = not failed and all(check.exact for check in checks if check.bias is not None)
            points.append(_Point(seconds, max(bounds, default=math.inf), _corner(where), exact, failed))
    return points


def _corner(where: Place) -> str:
    kinds = kinds_of(where)
    if any(kind.endswith(IN_MANY_DIMENSIONS) for kind in kinds):
        kinds.append("D of 4 or more")
    if where.mode.startswith("train"):
        kinds.append("train mode")
    return next((corner for corner in _CORNERS if corner in kinds), _USUAL)


def _panel(axes: Axes, points: Sequence[_Point], tolerance: float, limits: BiasLimits) -> None:
    axes.axhline(tolerance, color=INK, linewidth=1.0, linestyle=(0, (5.0, 2.0)), zorder=2)
    for corner, style in [*_CORNERS.items(), (FAILS, VERDICTS[FAILS])]:
        some = [p for p in points if (FAILS if p.failed else p.corner) == corner]
        if some:
            axes.plot(
                [p.seconds for p in some],
                [limits.place(0.0 if p.exact else p.bound) for p in some],
                linestyle="none",
                marker=style.marker,
                markersize=9 if corner == FAILS else 5.5,
                markerfacecolor=style.color,
                markeredgecolor="white",
                markeredgewidth=0.5,
                alpha=0.9,
                label=corner,
                zorder=4 if corner == FAILS else 3,
            )


def _legend(points: Sequence[_Point]) -> Legend:
    """The corners that there are, and what failed."""
    corners = {p.corner for p in points if not p.failed}
    shown = {corner: style for corner, style in _CORNERS.items() if corner in corners}
    if any(p.failed for p in points):
        shown[FAILS] = VERDICTS[FAILS]
    handles = [Line2D([], [], linestyle="none", marker=s.marker, color=s.color) for s in shown.values()]
    return Legend(list(handles), list(shown))
