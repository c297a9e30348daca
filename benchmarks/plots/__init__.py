"""Figures, from rows alone: no module here imports torch or measures anything.

One figure a module, each with the same function: ``draw(rows)`` returns a Figure, or None where the rows hold
nothing to draw. Importing this package does not import matplotlib; drawing does.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: The figures' names: the files they are written to and, with underscores, the modules that draw them.
FIGURES = (
    "variance",
    "variance-vs-samples",
    "variance-vs-evaluations",
    "variance-vs-parameter",
    "variance-vs-latent-dim",
    "variance-vs-batch-size",
    "variance-along-training",
    "variance-vs-cost",
    "variance-by-layer",
    "variance-by-datum",
    "noise-sources",
    "bias",
    "verdicts",
    "bias-bound-vs-time",
    "performance-profile",
    "convergence",
    "tuning",
    "time-to-target",
    "training-profile",
    "throughput",
)

__all__ = ["FIGURES", "draw_all"]


def draw_all(rows: pd.DataFrame, folder: Path, formats: Iterable[str] = ("png", "svg")) -> list[Path]:
    """Draw every figure that the rows have something for.

    Args:
        rows: long rows, the columns of ``schema.COLUMNS``.
        folder: where the files go; made if missing.
        formats: file name extensions that matplotlib can write.

    Returns:
        the files written.

    Raises:
        UsageError: what is called one point has rows of different models or data.
    """
    from ..rows.identity import check_one_model
    from .style import save

    check_one_model(rows)

    extensions = tuple(formats)
    paths = []
    for name in FIGURES:
        figure = import_module(f".{name.replace('-', '_')}", __name__).draw(rows)
        if figure is not None:
            paths += [save(figure, folder / f"{name}.{extension}") for extension in extensions]
    return paths
