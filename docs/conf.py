"""The site that `tox -e docs` builds; the pages are the Markdown files as they are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "elbograd"
author = "The elbograd authors"
copyright = author
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "formulas",
    "links",
    "mathml",
    "reference",
]

# The root of the repository is the source, so that every relative link holds as it stands.
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**", "results/**.md"]
exclude_patterns = [".*", "build", "site", "results/runs", "docs/extensions"]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 3

nitpicky = True
# Types of other libraries are named in signatures; their pages are not at hand offline.
nitpick_ignore_regex = [("py:.*", r"(?!elbograd\.(estimators|benchmarks)\.\w+$).*")]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature says them

html_theme = "furo"
html_title = "elbograd"
html_math_renderer = "mathml"
html_static_path = ["extensions/style.css"]
html_css_files = ["style.css"]
html_extra_path = ["extensions/index.html"]
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse to do from files
html_show_sphinx = False
pygments_style = "default"
suppress_warnings = ["myst.header"]  # tables that commands write begin with a second-level heading
