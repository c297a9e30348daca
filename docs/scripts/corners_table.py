"""Writes the table of docs/certification.md: in which corners estimators are asked.

python docs/scripts/corners_table.py
"""

from __future__ import annotations

from pathlib import Path

from elbograd.benchmarks.certification.corners import CORNERS
from elbograd.benchmarks.rows.certificate_checks import MODES

PAGE = Path(__file__).parents[2] / "docs" / "certification.md"
BEGIN, END = "<!-- corners -->\n", "<!-- end of corners -->\n"
_TYPES = ("float64", "float32")


def table() -> list[str]:
    """Markdown: S × B of the corners by mode and type, and which S and B these are."""
    lines = [f"| S × B | {' | '.join(_TYPES)} |", "|---|---|---|"]
    for mode, words in MODES.items():
        cells = [_sizes(mode, kind) for kind in _TYPES]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    samples, data = ({getattr(c, name) for c in CORNERS} for name in ("num_samples", "batch_size"))
    return [*lines, "", f"S is {_enumerated(samples)}; B is {_enumerated(data)}."]


def _sizes(mode: str, dtype: str) -> str:
    chosen = sorted((c.num_samples, c.batch_size) for c in CORNERS if (c.mode, c.dtype) == (mode, dtype))
    return ", ".join(f"{s} × {b}" for s, b in chosen)


def _enumerated(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def page_with_table(text: str) -> str:
    """The page with the table as it is today."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n".join(table()) + "\n" + END + rest.split(END)[1]


def main() -> None:
    """Put the table into the page."""
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
