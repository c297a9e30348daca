"""A table as LaTeX, for ``\\input`` where booktabs is loaded and fonts are T1."""

from __future__ import annotations

import pandas as pd

from ..rows.text import clean, shorten
from .columns import Column, Table
from .layout import NAMES, Layout, lay_out

# What pdflatex does not know as a character of text, and what would end or open something.
_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "−": r"\ensuremath{-}",
    "∝": r"\ensuremath{\propto}",
    "²": r"\ensuremath{^2}",
    "√": r"\ensuremath{\surd}",
    "∞": r"\ensuremath{\infty}",
    "‖": r"\ensuremath{\Vert}",
    "∇": r"\ensuremath{\nabla}",
    "Σ": r"\ensuremath{\Sigma}",
    "…": r"\dots{}",
    "ĝ": r"\ensuremath{\hat{g}}",
    "ε": r"\ensuremath{\epsilon}",
    "η": r"\ensuremath{\eta}",
    "θ": r"\ensuremath{\theta}",
    "μ": r"\ensuremath{\mu}",
    "σ": r"\ensuremath{\sigma}",
    "τ": r"\ensuremath{\tau}",
    "φ": r"\ensuremath{\varphi}",
    "ψ": r"\ensuremath{\psi}",
}


def latex(table: Table, cases: pd.DataFrame) -> str:
    """A ``tabular`` with booktabs' rules; settings and what the columns mean in a comment above it."""
    layout = lay_out(table, cases)
    return tabular(layout, f"{table.title}. {layout.settings}. {table.caption}")


def tabular(layout: Layout, caption: str = "") -> str:
    """A ``tabular`` of a layout: numbers to the right, specifications in typewriter."""
    cells = [
        [_cell(column, text) for column, text in zip(layout.columns, line, strict=True)]
        for line in layout.lines
    ]
    table = pd.DataFrame(cells, columns=[escape(column.heading) for column in layout.columns])
    alignment = "".join("r" if column.number else "l" for column in layout.columns)
    needs = r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."
    body = table.style.hide(axis="index").to_latex(hrules=True, column_format=alignment)
    return f"% {clean(caption)}\n{needs}\n{body}"


def _cell(column: Column, text: str) -> str:
    if not column.number and column.heading in NAMES:
        return rf"\texttt{{{escape(shorten(text, 60))}}}"
    # In braces: after a \\ that ends a line, a bracket would be taken for its optional argument.
    return f"{{{escaped}}}" if (escaped := escape(text)).startswith(("[", "*")) else escaped


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line.

    >>> escape("a_b & 50%")
    'a\\\\_b \\\\& 50\\\\%'
    """
    return "".join(_CHARACTERS.get(character, character) for character in clean(text))
