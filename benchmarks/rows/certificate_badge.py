"""A badge that shows a verdict in a README: as an SVG of its own, and for https://shields.io/badges/endpoint-badge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from ...estimators.text import clean

_LABEL = "elbograd"
# State -> the colour's name at shields.io, and the one of the SVG: white text on it can be read (WCAG AA).
_COLORS = {
    "holds": ("brightgreen", "#23783A"),
    "declared": ("blue", "#00639C"),
    "fails": ("red", "#B3261E"),
    "not shown": ("lightgrey", "#6B6B6B"),
}
_LABEL_COLOR = "#444444"
_HEIGHT, _PADDING, _BASELINE = 20, 6, 14
# Pixels that Verdana's characters take at 11 px; all others as much as a digit.
_WIDTHS = dict.fromkeys("aceovxyz", 6.5) | dict(
    zip(" .,iltfrsj", (4, 4, 4, 3, 3, 4.3, 4, 4.7, 5.7, 4), strict=True)
)
_WIDTHS |= {"%": 11.8, "≤": 9.0, "…": 9.0}
_DIGIT = 7.0


@dataclass(frozen=True)
class Badge:
    """A verdict in two words.

    Attributes:
        state: "holds", "declared" (a bias that is declared, and all else holds), "fails" or "not shown".
        message: what stands on the coloured half.
    """

    state: str
    message: str

    def endpoint(self) -> dict[str, Any]:
        """JSON-ready values in shields.io's endpoint schema."""
        return {
            "schemaVersion": 1,
            "label": _LABEL,
            "message": self.message,
            "color": _COLORS[self.state][0],
            "isError": self.state == "fails",
        }

    def svg(self, title: str = "") -> str:
        """A picture 20 pixels high that refers to nothing outside.

        Args:
            title: shown where a pointer rests on it, and read out: any text.
        """
        left, right = (_width(text) for text in (_LABEL, self.message))
        color, whole = _COLORS[self.state][1], left + right
        told = clean(title) or f"{_LABEL}: {self.message}"
        size = f'width="{whole}" height="{_HEIGHT}"'
        return f"""\
<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(told)}>
<title>{escape(told)}</title>
<clipPath id="r"><rect {size} rx="3"/></clipPath>
<g clip-path="url(#r)">
<rect width="{left}" height="{_HEIGHT}" fill="{_LABEL_COLOR}"/>
<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{color}"/>
</g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
{_text(_LABEL, left / 2, left)}
{_text(self.message, left + right / 2, right)}
</g>
</svg>
"""


def badge_of(holds: bool | None, unbiased: bool, bias: str) -> Badge:
    """The badge of a verdict.

    Args:
        holds: the verdict; None: not shown.
        unbiased: whether the estimator claims to be.
        bias: what is known of its bias, in a few words.
    """
    if holds is None:
        return Badge("not shown", "not shown")
    if not holds:
        return Badge("fails", "fails")
    if unbiased:
        return Badge("holds", f"bias {bias}" if bias else "holds")
    return Badge("declared", f"bias {bias}, as declared" if bias else "holds")


def _text(text: str, middle: float, width: int) -> str:
    length = width - 2 * _PADDING  # whatever the font, it fits
    return f'<text x="{middle:g}" y="{_BASELINE}" textLength="{length}">{escape(text)}</text>'


def _width(text: str) -> int:
    """Pixels that a text takes, with what is left free beside it."""
    return round(sum(_WIDTHS.get(character, _DIGIT) for character in text)) + 2 * _PADDING
