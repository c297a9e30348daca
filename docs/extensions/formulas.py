"""Formulas in running text, as docstrings and pages have them: Σ_s f(z_s)² gets its subscripts set."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# What carries an index: one letter or sign, with its accents and marks, or the name of an operator.
_BASE = r"(?<![A-Za-z\d_])(?:Var|Cov|Corr|log|max|min|tr|[^\W\d_]|[∇Σ∂∫∏])[\u0300-\u036f⁺⁻*′’']*|(?<=[\])}])"
_BRACES = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_SIGN = "[A-Za-z0-9Α-Ωα-ω]"  # not ᵀ or ², which are raised already
_INDEX = rf"{_BRACES}|{_SIGN}{{1,3}}(?!{_SIGN})[⁺⁻]?"
_POWER = rf"{_BRACES}|[−-]?(?:{_SIGN}(?!{_SIGN})|\d+)"
_MARKED = re.compile(rf"(?P<base>{_BASE})(?P<marks>(?:_(?:{_INDEX})|\^(?:{_POWER}))+)")
_MARK = re.compile(rf"([_^])({_BRACES}|[−-]?{_SIGN}+[⁺⁻]?)")
_VERBATIM = (nodes.literal, nodes.FixedTextElement, nodes.math, nodes.raw, nodes.math_block, nodes.comment)


def setup(app: Sphinx) -> dict[str, bool]:
    """Set the formulas of every page."""
    app.add_transform(TypesetFormulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def typeset(text: str) -> list[nodes.Node]:
    """The text with what follows _ and ^ lowered and raised, where that is an index or a power."""
    parts: list[nodes.Node] = []
    start = 0
    for found in _MARKED.finditer(text):
        parts.append(nodes.Text(text[start : found.start()] + found["base"]))
        for sign, mark in _MARK.findall(found["marks"]):
            kind = nodes.subscript if sign == "_" else nodes.superscript
            inside = mark[1:-1] if mark.startswith("{") else mark
            parts.append(kind("", "", *typeset(inside)))
        start = found.end()
    return [*parts, nodes.Text(text[start:])]


class TypesetFormulas(SphinxTransform):
    """Set indices and powers in text, and indented blocks of Markdown and docstrings line by line."""

    default_priority = 400

    def apply(self) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language") in ("none", "formula"):
                block.replace_self(_block(block))
        for text in list(self.document.findall(nodes.Text)):
            if not _verbatim(text):
                parts = typeset(text.astext())
                if len(parts) > 1:
                    text.parent.replace(text, parts)


def _block(block: nodes.literal_block) -> nodes.line_block:
    """Lines of a formula; spaces that align them are kept by the style sheet."""
    lines = [nodes.line("", line) for line in block.astext().splitlines()]
    return nodes.line_block("", *lines, classes=["formula"])


def _verbatim(text: nodes.Text) -> bool:
    node = text.parent
    while node is not None:
        if isinstance(node, _VERBATIM):
            return True
        node = node.parent
    return False
