"""A logarithmic axis of relative biases in percent, with a place of its own for what is known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from .axes import Direction, log_axis
from .style import FAINT, Dashes

_NOTHING = 1e-6  # below it a bias is rounding
_BREAK: Dashes = (0, (1.0, 2.5))


class BiasLimits(NamedTuple):
    """Where the numbers of an axis begin and end; what is exact is drawn below them."""

    low: float
    high: float

    @property
    def exact(self) -> float:
        """The place of what is exact."""
        return self.low / (self.high / self.low) ** 0.18

    def place(self, value: float) -> float:
        """Where a bias is drawn: rounding error at the place of what is exact, none beyond the end."""
        return self.exact if value <= _NOTHING else min(max(value, self.low), self.high)


def bias_limits(values: Iterable[float], tolerance: float) -> BiasLimits:
    """Ends of the axis for bounds, the tolerance among them; infinite ones are left out."""
    shown = [v for v in (*values, tolerance) if _NOTHING < v < float("inf")]
    low, high = min(shown), max(shown)
    margin = max(1.5, (high / low) ** 0.07)
    return BiasLimits(low / margin, high * margin)


def bias_axis(axes: Axes, direction: Direction, limits: BiasLimits, exact: str, most: int = 6) -> None:
    """Make an axis logarithmic, in percent.

    Args:
        axes: of the panel.
        direction: of the axis.
        limits: its ends.
        exact: what the place below them is called; "" for none.
        most: ticks.
    """
    log_axis(axes, direction, *limits, most)
    axis, limit, line = axes.yaxis, axes.set_ylim, axes.axhline
    if direction == "x":
        axis, limit, line = axes.xaxis, axes.set_xlim, axes.axvline  # type: ignore[assignment]
    ticks = [float(tick) for tick in axis.get_majorticklocs()]
    labels = [f"{100 * tick:g}%" for tick in ticks]
    if exact:
        ticks, labels = [limits.exact, *ticks], [exact, *labels]
        limit(limits.exact**1.5 / limits.low**0.5, limits.high)
        line(limits.low, color=FAINT, linewidth=0.8, linestyle=_BREAK)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(labels))
