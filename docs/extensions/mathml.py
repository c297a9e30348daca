"""TeX as native MathML: no script, no font, no network. docutils does the translation."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

# What docutils leaves to the renderer, and browsers do not do: a thin space behind log, not before (; bars
# about a norm as high as what stands beside them, not as the line.
_AFTER_OPERATOR = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*(?:<mo[^>]*>[(\[]|</m|$))")
_NORM = re.compile(r'<mo(?: class="math(?:open|close)")?>‖</mo>')

logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer "mathml"."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(translated(node, as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math" tabindex="0">{translated(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def translated(node: nodes.Element, as_block: bool) -> str:
    """The node's TeX as MathML; a warning, and nothing, where docutils does not understand it."""
    try:
        found = tex2mathml(node.astext().strip(), as_block=as_block)
    except MathError as error:
        logger.warning("TeX that is not understood: %s", error, location=node)
        return ""
    spaced = _AFTER_OPERATOR.sub('<mo>&ApplyFunction;</mo><mspace width="0.1667em"></mspace>', found)
    return _NORM.sub('<mo stretchy="false">‖</mo>', spaced)
