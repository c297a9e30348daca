"""What the site has and the plain files do not: links of estimators' names and folders, the navigation."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from elbograd.estimators.plugins.registry import BUILTIN_NAMES
from pygments.lexers.shell import BashLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)\)")
HOME = "docs/index"
GENERATED = {"estimators/index": "Estimators", "api": "Python interface"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what rewrites sources and pages."""
    app.connect("source-read", _rewrite_source)
    app.add_lexer("console", BashLexer)  # commands without a prompt are not output
    app.add_transform(LinkEstimators)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _rewrite_source(app: Sphinx, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).suffix != ".md":
        return
    folder = Path(app.env.doc2path(docname)).parent
    source[0] = LINK.sub(lambda found: link_to_readme(found, folder), source[0])
    if docname == HOME:
        source[0] += navigation(source[0])


def link_to_readme(found: re.Match[str], folder: Path) -> str:
    """The link itself, or for a folder the README nearest to it: a site has no listings."""
    target = folder / found[2]
    if not target.is_dir():
        return found[0]
    while not (target / "README.md").exists():
        target = target.parent
    here = len(folder.resolve().parts)
    readme = (target / "README.md").resolve()
    common = next(
        k for k in range(here, 0, -1) if readme.parts[:k] == folder.resolve().parts[:k]
    )  # the file system's root is common to all
    path = "/".join([*[".."] * (here - common), *readme.parts[common:]])
    return f"[{found[1]}]({path})"


def navigation(text: str) -> str:
    """The site's contents: the pages that the home page links to, a list a heading, in its order."""
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, _, rest = section.partition("\n")
        pages = {
            target: " ".join(text.split()) for text, target in LINK.findall(rest) if target[-3:] == ".md"
        }
        pages |= GENERATED if caption == "Reference" else {}
        if pages:
            entries = "\n".join(f"{text[:1].upper()}{text[1:]} <{target}>" for target, text in pages.items())
            trees.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n")
    return "\n" + "".join(trees)


class LinkEstimators(SphinxTransform):
    """`leave-one-out`, or with its parameters, leads to the page of that estimator."""

    default_priority = 410

    def apply(self) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().partition("[")[0]
            inside = (nodes.reference, nodes.title, addnodes.pending_xref)
            if name in BUILTIN_NAMES and not isinstance(literal.parent, inside):
                page = f"/docs/estimators/{name}"
                if self.env.docname == page[1:]:
                    continue
                link = addnodes.pending_xref(
                    "",
                    literal.deepcopy(),
                    refdomain="std",
                    reftype="doc",
                    reftarget=page,
                    refexplicit=True,
                    refwarn=True,
                    refdoc=self.env.docname,
                )
                literal.parent.replace(literal, link)
