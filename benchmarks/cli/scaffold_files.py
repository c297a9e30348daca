"""A file to start from, and its test, under a name that spoils nothing."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ...estimators.errors import UsageError

# Modules of these names, beside a test, would be imported in place of the real ones.
_TAKEN_MODULES = sys.stdlib_module_names | {
    "conftest", "elbograd", "numpy", "pandas", "pytest", "scipy", "sklearn", "torch",
}  # fmt: skip


@dataclass(frozen=True)
class Scaffold:
    """What is written.

    Attributes:
        kind: "estimator" or "problem", for messages.
        example: of a name.
        known: names that are taken.
        classes: names of classes that the source uses.
        source: text of the file, with @Class@, @module@ and @Title@ where the name goes.
        test: of its test.
    """

    kind: str
    example: str
    known: Collection[str]
    classes: frozenset[str]
    source: str
    test: str


def write_files(scaffold: Scaffold, name: str, folder: Path) -> tuple[Path, Path]:
    """Write ``my_idea.py`` and ``test_my_idea.py`` for the name "my-idea"; return their paths.

    Raises:
        UsageError: the name is not kebab-case or is taken, a file is there already, or the folder cannot
            be written to.
    """
    module, class_name = _checked(scaffold, name)
    source, test = folder / f"{module}.py", folder / f"test_{module}.py"
    marks = {"@Class@": class_name, "@module@": module, "@Title@": name.replace("-", " ").capitalize()}
    try:
        for path in (source, test):
            if path.exists():
                raise UsageError(
                    f"{path} exists already and is not overwritten: choose another name or folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in ((source, scaffold.source), (test, scaffold.test)):
            with path.open("x", encoding="utf-8") as file:
                file.write(_fill(template, marks))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    return source, test


def _checked(scaffold: Scaffold, name: str) -> tuple[str, str]:
    """The module's and the class's name, or UsageError."""
    what, another = f"{scaffold.kind} name {name!r}", f"choose another, as {scaffold.example}"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{what} is not kebab-case: lower-case words joined by -, as {scaffold.example}")
    if name in scaffold.known:
        raise UsageError(f"{what} is taken: choose none of {', '.join(scaffold.known)}")
    module = name.replace("-", "_")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    if keyword.iskeyword(module) or keyword.iskeyword(class_name):
        raise UsageError(f"{what} is a Python keyword: {another}")
    if module in _TAKEN_MODULES or class_name in scaffold.classes or module.startswith("test_"):
        raise UsageError(f"{what} would hide another Python name: {another}")
    return module, class_name


def _fill(template: str, marks: dict[str, str]) -> str:
    for mark, value in marks.items():
        template = template.replace(mark, value)
    return template
