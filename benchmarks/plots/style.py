"""How every figure looks: one colour, marker and line style an estimator, fonts, reproducible files."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..store.atomic import replacing

Dashes = Literal["-"] | tuple[int, tuple[float, ...]]

INK = "#222222"
FAINT = "#767676"
GRID = "#E2E2E2"


@dataclass(frozen=True)
class Style:
    """What an estimator looks like in every figure."""

    color: str
    marker: str
    linestyle: Dashes


_SOLID: Dashes = "-"
_DASHED: Dashes = (0, (5.0, 2.0))
_LONG: Dashes = (0, (9.0, 2.5))
_DOTTED: Dashes = (0, (1.2, 1.6))
_DASH_DOT: Dashes = (0, (5.0, 1.6, 1.2, 1.6))
_DASH_DOT_DOT: Dashes = (0, (5.0, 1.6, 1.2, 1.6, 1.2, 1.6))

# Okabe–Ito, with brown for its yellow, which is too light for a line on white.
_BUILTINS = {
    "reparameterization": Style("#0072B2", "o", _SOLID),
    "score-function": Style("#D55E00", "s", _DASHED),
    "constant-baseline": Style("#E69F00", "^", _DASH_DOT),
    "moving-average-baseline": Style("#CC79A7", "v", _DOTTED),
    "leave-one-out": Style("#009E73", "D", _SOLID),
    "learned-baseline": Style("#56B4E9", "P", _LONG),
    "optimal-baseline": Style("#8C5A2B", "X", _DASH_DOT_DOT),
    "exact": Style("#000000", "*", _DASHED),
    "sticking-the-landing": Style("#882255", "<", _LONG),
    "measure-valued": Style("#332288", "h", _DASH_DOT),
    "vargrad": Style("#117733", "d", _DOTTED),
    "linearized-hessian": Style("#44AA99", ">", _SOLID),
    "quadratic-control-variate": Style("#999933", "p", _DASHED),
    "delta-method": Style("#CC6677", "8", _DASH_DOT),
    "mixed": Style("#661100", "H", _SOLID),
    "generalized-reparameterization": Style("#6699CC", "d", _DASHED),
    "iwae": Style("#AA4499", "p", _DASH_DOT_DOT),
    "dreg": Style("#009E73", "s", _LONG),
    "iwae-sticking-the-landing": Style("#882255", "d", _DASHED),
    "vimco": Style("#999933", "v", _DASH_DOT),
    "ovis": Style("#D55E00", "X", _DOTTED),
    "reweighted-wake-sleep": Style("#E69F00", "D", _SOLID),
    "thermodynamic": Style("#56B4E9", "^", _DASHED),
    # For discrete latents: a colour a family.
    "local-expectation": Style("#117733", "o", _SOLID),
    "bit-flip": Style("#117733", "s", _DASHED),
    "arm": Style("#56B4E9", "v", _DOTTED),
    "arsm": Style("#56B4E9", "X", _DASH_DOT),
    "disarm": Style("#0072B2", "D", _DASH_DOT),
    "arms": Style("#0072B2", "^", _DASHED),
    "carms": Style("#0072B2", "P", _LONG),
    "unordered-set": Style("#8C5A2B", "o", _SOLID),
    "sum-and-sample": Style("#8C5A2B", "s", _DASHED),
    "muprop": Style("#CC79A7", "o", _SOLID),
    "rebar": Style("#AA4499", "s", _SOLID),
    "relax": Style("#AA4499", "^", _DASHED),
    "double-control-variate": Style("#882255", "P", _DASH_DOT),
    "rodeo": Style("#882255", "o", _SOLID),
    "gumbel-softmax": Style("#E69F00", "o", _DASHED),
    "gapped-straight-through": Style("#E69F00", "P", _LONG),
    "straight-through": Style("#D55E00", "o", _SOLID),
    "straight-through-gumbel-softmax": Style("#D55E00", "^", _LONG),
    "gumbel-rao": Style("#CC6677", "v", _LONG),
    "reinmax": Style("#661100", "s", _DASHED),
    "local-disarm": Style("#999933", "o", _LONG),
    # For the weights of a network.
    "local-reparameterization": Style("#44AA99", "o", _LONG),
    "flipout": Style("#6699CC", "s", _DASH_DOT),
}
# For all other names: colours (Tol's muted scheme) and markers that no built-in estimator has.
_COLORS = ("#332288", "#882255", "#44AA99", "#999933", "#CC6677", "#117733", "#AA4499")
_MARKERS = ("<", ">", "p", "h", "d")
_OTHER_MARKERS = tuple(style.marker for style in _BUILTINS.values())
_LINES: tuple[Dashes, ...] = (_SOLID, _DASHED, _DASH_DOT, _DOTTED, _LONG, _DASH_DOT_DOT)


def style_of(label: str) -> Style:
    """The style of an estimator, from its specification alone, so that it never changes between runs.

    A variant of a built-in, such as "score-function[kl=sampled]", keeps the colour of its name.
    """
    if label in _BUILTINS:
        return _BUILTINS[label]
    name = label.partition("[")[0]
    color = _BUILTINS[name].color if name in _BUILTINS else _COLORS[_hash(name) % len(_COLORS)]
    number = _hash(label)
    return Style(color, _MARKERS[number % len(_MARKERS)], _LINES[number // len(_MARKERS) % len(_LINES)])


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """The styles of one figure's estimators, all different: where two coincide, marker and line give way."""
    styles: dict[str, Style] = {}
    for label in sorted(set(labels), key=lambda label: (label not in _BUILTINS, label)):
        style, taken = style_of(label), {(s.color, s.marker) for s in styles.values()}
        drawn = {(s.color, s.linestyle) for s in styles.values()}
        free = [
            replace(style, marker=marker, linestyle=line)
            for marker, line in product(
                (style.marker, *_MARKERS, *_OTHER_MARKERS), (style.linestyle, *_LINES)
            )
            if (style.color, marker) not in taken
        ]
        free.sort(key=lambda s: (s.color, s.linestyle) in drawn)
        styles[label] = free[0] if free else style
    return styles


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def literal(text: str) -> str:
    """Text that matplotlib prints as it stands, dollar signs included."""
    return text.replace("$", r"\$")


@contextmanager
def theme() -> Iterator[None]:
    """The settings in which figures are drawn and saved, whatever the user's own are; those come back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(sns.axes_style("whitegrid"))
        matplotlib.rcParams.update(
            {
                "font.family": ["DejaVu Sans"],
                "font.size": 10,
                "axes.labelsize": 10,
                "axes.titlesize": 10,
                "axes.titlelocation": "left",
                "axes.titlepad": 7,
                "axes.edgecolor": FAINT,
                "axes.labelcolor": INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.8,
                "axes.axisbelow": True,
                "text.color": INK,
                "text.usetex": False,
                "xtick.color": FAINT,
                "ytick.color": FAINT,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
                "xtick.bottom": True,
                "ytick.left": True,
                "xtick.major.size": 3,
                "ytick.major.size": 3,
                "xtick.minor.size": 1.8,
                "ytick.minor.size": 1.8,
                "xtick.minor.width": 0.6,
                "ytick.minor.width": 0.6,
                "legend.fontsize": 9,
                "legend.frameon": False,
                "grid.color": GRID,
                "grid.linewidth": 0.7,
                "lines.linewidth": 1.7,
                "lines.markersize": 6.5,
                "figure.facecolor": "white",
                "figure.dpi": 100,
                "savefig.facecolor": "white",
                "savefig.dpi": 200,
                "svg.hashsalt": "elbograd",
            }
        )
        yield


def themed(draw: Callable[[pd.DataFrame], Figure | None]) -> Callable[[pd.DataFrame], Figure | None]:
    """A figure function, run inside ``theme``; the figure belongs to no window and needs no closing."""

    @functools.wraps(draw)
    def drawn(rows: pd.DataFrame) -> Figure | None:
        with theme():
            figure = draw(rows)
            if figure is not None:
                figure.draw_without_rendering()  # here, because ticks take their settings when first drawn
            return figure

    return drawn


def save(figure: Figure, path: Path) -> Path:
    """Write a figure so that the same figure gives the same bytes: no date, no random identifiers."""
    undated = {".svg": "Date", ".svgz": "Date", ".pdf": "CreationDate", ".png": "Software"}
    key = undated.get(path.suffix.lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    with theme(), replacing(path) as unfinished:
        figure.savefig(unfinished, metadata=None if key is None else {key: None})
    return path
