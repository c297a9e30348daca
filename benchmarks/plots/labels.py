"""Names beside points, where they cover neither each other nor the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from .style import FAINT, INK, literal

_RADII = (9, 15, 22, 30, 40, 52, 66, 82, 100)  # points from the marker to the name
_ANGLES = (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90)  # degrees
_NO_LEADER = 15  # a name at most so many points away needs no line to its marker
_SWEEPS = 3
# In points of distance: the cost of a pixel outside, a pixel² covered, a name or marker crossed, a line
# covered, and being near to another point.
_OUTSIDE, _COVERED, _CROSSED, _ON_LINE, _AMBIGUOUS = 50.0, 20.0, 300.0, 12.0, 25.0

Array = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Segment = tuple[float, float, float, float]  # x, y of one end and of the other


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    lines: Sequence[Segment] = (),
) -> None:
    """Name each point, with a thin line to it where the name had to go farther away.

    Call it last: the layout of the figure is frozen, so that the names stay where they fit. Each name goes to
    the best of a fixed list of places, hence the same points are always labelled the same way.

    Args:
        figure: the figure.
        axes: one of its panels.
        points: places in data coordinates.
        names: what to call them.
        lines: segments in data coordinates that the names had better not cover.
    """
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    scale = figure.dpi / 72
    pixels = np.array([axes.transData.transform(point) for point in points])
    ends = [axes.transData.transform(segment[i : i + 2]) for segment in lines for i in (0, 2)]
    texts = [
        axes.annotate(
            literal(name),
            point,
            xytext=(0, 0),
            textcoords="offset points",
            verticalalignment="bottom",
            fontsize=9,
            color=INK,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=4,
        )
        for point, name in zip(points, names, strict=True)
    ]
    sizes = np.array([text.get_window_extent().size for text in texts])
    frame = axes.get_window_extent()
    inside = np.array([frame.x0 + 3, frame.y0 + 3, frame.x1 - 3, frame.y1 - 3])
    boxes, radii = _place(pixels, sizes, inside, scale, np.array(ends).reshape(-1, 4))
    starts = _nearest(boxes, pixels)
    for i, text in enumerate(texts):
        text.set_position(tuple((boxes[i, :2] - pixels[i]) / scale))
        if radii[i] > _NO_LEADER:
            axes.annotate(
                "",
                points[i],
                xytext=tuple((starts[i] - pixels[i]) / scale),
                textcoords="offset points",
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5},
                zorder=2.2,
            )


def _place(pixels: Array, sizes: Array, inside: Array, scale: float, lines: Array) -> tuple[Array, Array]:
    """A box (4,) for each name and its distance in points: the best of a few arrangements."""
    reach = 6 * scale
    markers = np.hstack([pixels - reach, pixels + reach])
    choices = [
        # Points that lie on one another need not keep clear of each other's names.
        _choices(pixel, size, inside, scale, lines, markers, np.hypot(*(pixels - pixel).T) > reach)
        for pixel, size in zip(pixels, sizes, strict=True)
    ]
    orders = [np.lexsort(keys) for keys in ((pixels[:, 0], pixels[:, 1]), (pixels[:, 1], pixels[:, 0]))]
    arrangements = [_arrange(choices, order) for order in (*orders, *(order[::-1] for order in orders))]
    chosen, _ = min(arrangements, key=lambda arrangement: arrangement[1])
    boxes = np.array([c.boxes[k] for c, k in zip(choices, chosen, strict=True)])
    return boxes, np.array([c.radii[k] for c, k in zip(choices, chosen, strict=True)])


class _Choices(NamedTuple):
    """The places for one name, and what each costs whatever becomes of the other names."""

    boxes: Array
    radii: Array
    leaders: Array
    cost: Array


def _choices(
    pixel: Array, size: Array, inside: Array, scale: float, lines: Array, markers: Array, others: Booleans
) -> _Choices:
    boxes, radii = _candidates(pixel, size, scale)
    leaders = np.hstack([_nearest(boxes, pixel), np.tile(pixel, (len(boxes), 1))])
    cost = radii + _OUTSIDE * _excess(boxes, inside) + _COVERED * _overlaps(boxes, markers).sum(axis=1)
    cost += _CROSSED * _passes(leaders, markers[others]).sum(axis=1) + _ON_LINE * _passes(lines, boxes).sum(
        axis=0
    )
    # A name that is as near to another point could be taken for that one's.
    near = _overlaps(boxes, markers[others], apart=6 * scale) > 0
    cost += _AMBIGUOUS * near.any(axis=1)
    return _Choices(boxes, radii, leaders, cost)


def _arrange(choices: list[_Choices], order: NDArray[np.intp]) -> tuple[list[int], float]:
    """The place of each name and the total cost, when in this order each takes its best, a few times over."""
    chosen: dict[int, int] = {}
    costs: dict[int, float] = {}
    for i in [int(i) for i in order] * _SWEEPS:
        mine, others = choices[i], [(choices[j], k) for j, k in chosen.items() if j != i]
        cost = mine.cost.copy()
        if others:
            boxes, leaders = (
                np.array([getattr(c, name)[k] for c, k in others]) for name in ("boxes", "leaders")
            )
            cost += _COVERED * _overlaps(mine.boxes, boxes).sum(axis=1)
            cost += _CROSSED * _passes(mine.leaders, boxes).sum(axis=1)
            cost += _CROSSED * _passes(leaders, mine.boxes).sum(axis=0)
            cost += _CROSSED * _crosses(mine.leaders, leaders).sum(axis=1)
        chosen[i] = int(np.argmin(cost))
        costs[i] = float(cost[chosen[i]])
    return [chosen[i] for i in range(len(choices))], sum(costs.values())


def _candidates(pixel: Array, size: Array, scale: float) -> tuple[Array, Array]:
    """Boxes (left, bottom, right, top) around a point and their distances from it in points."""
    radii, angles = (grid.ravel() for grid in np.meshgrid(_RADII, _ANGLES, indexing="ij"))
    side = np.where(np.abs(angles) == 90, -0.5, np.where(np.abs(angles) < 90, 0.0, -1.0))
    left = pixel[0] + scale * radii * np.cos(np.radians(angles)) + side * size[0]
    bottom = pixel[1] + scale * radii * np.sin(np.radians(angles)) - size[1] / 2
    return np.stack([left, bottom, left + size[0], bottom + size[1]], axis=1), radii.astype(float)


def _excess(boxes: Array, inside: Array) -> Array:
    """How far boxes stick out of the panel, in pixels."""
    excess: Array = np.hstack([inside[:2] - boxes[:, :2], boxes[:, 2:] - inside[2:]]).clip(min=0).sum(axis=1)
    return excess


def _overlaps(boxes: Array, others: Array, apart: float = 2.0) -> Array:
    """Areas that boxes share with others, in pixels², (k, n)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas: Array = (high - low + apart).clip(min=0).prod(axis=-1)
    return areas


def _nearest(boxes: Array, pixels: Array) -> Array:
    """The place on each box that is nearest to a point, (k, 2)."""
    return np.clip(pixels, boxes[:, :2], boxes[:, 2:])


def _passes(segments: Array, boxes: Array) -> Booleans:
    """Whether segments go through boxes, (k, n): looked up at twenty places along each."""
    along = np.linspace(0.02, 0.98, 20)[:, None]
    places = segments[:, None, :2] + along * (segments[:, None, 2:] - segments[:, None, :2])
    within = (places[:, None] > boxes[:, None, :2]) & (places[:, None] < boxes[:, None, 2:])
    return np.asarray(within.all(axis=-1).any(axis=-1), dtype=np.bool_)


def _crosses(segments: Array, others: Array) -> Booleans:
    """Whether segments cross others, (k, n)."""

    def side(lines: Array, places: Array) -> Array:
        along, to = lines[..., 2:] - lines[..., :2], places - lines[..., :2]
        return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]

    a, b = segments[:, None], others[None]
    apart: Booleans = side(a, b[..., :2]) * side(a, b[..., 2:]) < 0
    return apart & (side(b, a[..., :2]) * side(b, a[..., 2:]) < 0)
