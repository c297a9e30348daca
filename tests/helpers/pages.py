"""Taking a page of documentation apart: its code, its commands, its links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Page:
    """A Markdown file, by its path from the root of the repository."""

    def __init__(self, path):
        self.path = ROOT / path
        self.text = self.path.read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```", self.text, flags=re.MULTILINE | re.DOTALL)

    def code(self, containing):
        """The one Python block that contains a text."""
        (block,) = [text for language, text in self.blocks if language == "python" and containing in text]
        return block

    @property
    def commands(self):
        """Command lines of elbograd, but for those that need a finished run."""
        return [
            line
            for language, text in self.blocks
            if language == "console"
            for line in text.splitlines()
            if line.startswith("elbograd ") and " report " not in line
        ]

    @property
    def missing_links(self):
        """Files that are linked and do not exist."""
        links = re.findall(r"\]\(([^)#]+)\)", self.text)
        return [k for k in links if not k.startswith("http") and not (self.path.parent / k).exists()]
