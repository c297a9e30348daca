"""The markers of the figures as small pictures for the legend."""

from __future__ import annotations

import math


def path_of(marker: str) -> str:
    """An SVG path of a marker in the square from (-8, -8) to (8, 8)."""
    return _PATHS.get(marker, _PATHS["o"])


def _polygon(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _regular(sides: int, radius: float = 7.0, inner: float | None = None) -> str:
    """A regular polygon, or a star with so many tips."""
    count = sides if inner is None else 2 * sides
    radii = [radius if inner is None or k % 2 == 0 else inner for k in range(count)]
    angles = [2 * math.pi * k / count for k in range(count)]
    return _polygon([(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)])


def _cross(angle: float) -> str:
    corners = [
        (-2, -7),
        (2, -7),
        (2, -2),
        (7, -2),
        (7, 2),
        (2, 2),
        (2, 7),
        (-2, 7),
        (-2, 2),
        (-7, 2),
        (-7, -2),
        (-2, -2),
    ]
    cos, sin = math.cos(angle), math.sin(angle)
    return _polygon([(x * cos - y * sin, x * sin + y * cos) for x, y in corners])


_PATHS = {
    "o": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z",
    "s": _polygon([(-6, -6), (6, -6), (6, 6), (-6, 6)]),
    "^": _polygon([(0, -7), (7, 6), (-7, 6)]),
    "v": _polygon([(0, 7), (7, -6), (-7, -6)]),
    "<": _polygon([(-7, 0), (6, -7), (6, 7)]),
    ">": _polygon([(7, 0), (-6, -7), (-6, 7)]),
    "D": _polygon([(0, -8), (8, 0), (0, 8), (-8, 0)]),
    "d": _polygon([(0, -8), (5, 0), (0, 8), (-5, 0)]),
    "P": _cross(0.0),
    "X": _cross(math.pi / 4),
    "*": _regular(5, 8.0, 3.2),
    "p": _regular(5),
    "h": _regular(6),
}
