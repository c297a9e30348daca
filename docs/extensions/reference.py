"""The pages that are made from the code when the site is built: estimators and the Python interface."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

from elbograd.benchmarks.cli.listing import describe_estimators
from elbograd.estimators.plugins.registry import BUILTIN_NAMES, REGISTRY, catalogue
from sphinx.application import Sphinx

MODULES = (
    "elbograd.estimators",
    "elbograd.estimators.testing",
    "elbograd.benchmarks",
    "elbograd.benchmarks.problems",
)
_SECTION = re.compile(r"^(Args|Attributes|Example|References|Raises|Returns):\n", re.MULTILINE)
_FACT = re.compile(r"^ {4}(\w[\w ]{10}) {2}", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir)))
    app.connect("autodoc-process-docstring", _escape_docstring, priority=400)  # napoleon's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(root: Path) -> None:
    """Write docs/estimators/ and docs/api.rst."""
    folder = root / "docs" / "estimators"
    folder.mkdir(exist_ok=True)
    wanted = {folder / f"{name}.rst": estimator_page(name) for name in BUILTIN_NAMES}
    wanted[folder / "index.rst"] = index_page((root / "README.md").read_text(encoding="utf-8"))
    wanted[root / "docs" / "api.rst"] = api_page()
    for stale in set(folder.glob("*.rst")) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def groups(readme: str) -> dict[str, list[str]]:
    """Group -> names, as the README's table of the catalogue has them."""
    table = readme.split("\n## The catalogue\n")[1].split("\n## ")[0]
    lines = (line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| "))
    return {
        group: names
        for group, cell in (line for line in lines if len(line) == 2)
        if (names := [name for name in re.findall(r"`([^`]+)`", cell) if name in BUILTIN_NAMES])
    }


def index_page(readme: str) -> str:
    """All estimators, by group, with their summaries."""
    parts = [_heading("Estimators", "=")]
    parts.append(
        "What each is, from the docstring of its class; what it claims, needs and costs, as ``elbograd list "
        "--long`` prints it, where evaluations are counted and not declared.\n"
    )
    for group, names in groups(readme).items():
        parts.append(_heading(group[:1].upper() + group[1:], "-"))
        lines = [f"* - :doc:`{name}`\n  - {escape(catalogue()[name])}" for name in names]
        parts.append(_table("30 70", lines))
        listed = "\n".join(f"   {name}" for name in names)
        parts.append(f".. toctree::\n   :hidden:\n\n{listed}\n")
    return "\n".join(parts)


def estimator_page(name: str) -> str:
    """One estimator: docstring, options of its specification, claims, needs, cost."""
    factory = REGISTRY.find(name)
    body, sections = split_docstring(inspect.getdoc(factory) or "")
    summary, _, rest = body.partition("\n")
    parts = [_heading(name, "="), escape(summary), "", facts_table(name)]
    parts += [to_rst(display(rest.strip("\n"))), ""]
    options = options_table(factory, sections.get("Args", ""))
    if options:
        parts += [_heading("Options", "-"), f"``{_with_defaults(name, factory)}``\n", options]
    if "Example" in sections:
        parts += [_heading("Example", "-"), sections["Example"], ""]
    if "References" in sections:
        entries = re.split(r"(?<=\.)\n", sections["References"])
        found = [f"- {escape(' '.join(entry.split()))}" for entry in entries if entry.strip()]
        parts += [_heading("References", "-"), *found, ""]
    return "\n".join(parts)


def display(text: str) -> str:
    """The text with each formula that begins a paragraph with ĝ = on a line of its own."""
    return "\n\n".join(_displayed(paragraph) for paragraph in text.split("\n\n"))


def _displayed(paragraph: str) -> str:
    if not paragraph.startswith("ĝ = "):
        return paragraph
    line, depth = " ".join(paragraph.split()), 0
    for end, sign in enumerate(line, start=1):
        depth += (sign in "([{") - (sign in ")]}")
        if not depth and sign in ",.;:" and line[end : end + 1] in (" ", ""):
            break
    return f"    {line[:end]}\n\n{line[end:].strip()}"


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the sections, and section -> its lines, dedented."""
    body, *rest = _SECTION.split(text)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return body.strip("\n"), {heading: inspect.cleandoc(f"\n{content}") for heading, content in pairs}


def facts(name: str) -> dict[str, str]:
    """What ``elbograd list --long`` says of an estimator besides its summary: label -> text."""
    (paragraph,) = describe_estimators([name])
    _, *parts = _FACT.split(paragraph)
    return {
        label.strip(): " ".join(text.split()) for label, text in zip(parts[::2], parts[1::2], strict=True)
    }


def facts_table(name: str) -> str:
    """The same as a table; the references have a section of their own."""
    lines = [
        f"* - {label}\n  - {escape(text)}" for label, text in facts(name).items() if label != "reference"
    ]
    return _table("18 82", lines, "facts")


def options_table(factory: object, args: str) -> str:
    """What may stand in the brackets of a specification, its default, and what it means."""
    described = dict(re.findall(r"^(\w+): ((?:.*\n?(?: +.*\n?)*))", args, flags=re.MULTILINE))
    lines = [
        f"* - ``{option}``\n  - ``{_written(parameter.default)}``\n  - "
        f"{escape(' '.join(described[option].split()))}"
        for option, parameter in inspect.signature(factory).parameters.items()  # type: ignore[arg-type]
    ]
    header = "* - option\n  - default\n  - meaning"
    return _table("20 18 62", [header, *lines], header_rows=1) if lines else ""


def _with_defaults(name: str, factory: object) -> str:
    parameters = inspect.signature(factory).parameters.values()  # type: ignore[arg-type]
    return f"{name}[{','.join(f'{p.name}={_written(p.default)}' for p in parameters)}]"


def _written(default: object) -> str:
    """As it is written in a specification."""
    return str(default).lower() if isinstance(default, bool) or default is None else str(default)


def api_page() -> str:
    """The public names of each public module, through autodoc."""
    parts = [_heading("Python interface", "=")]
    for name in MODULES:
        module = import_module(name)
        parts += [_heading(name, "-"), to_rst(inspect.getdoc(module) or ""), ""]
        for member in public_names(name):
            value = getattr(module, member)
            if not isinstance(value, type):
                parts.append(f".. autofunction:: {name}.{member}\n")
            elif issubclass(value, BaseException):
                parts.append(f".. autoexception:: {name}.{member}\n")
            else:
                parts.append(f".. autoclass:: {name}.{member}\n   :members:\n")
    return "\n".join(parts)


def public_names(name: str) -> list[str]:
    """The names that a module offers: its ``__all__``, or what it defines."""
    module = import_module(name)
    defined = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == name and n[0] != "_"]
    return sorted(getattr(module, "__all__", defined), key=lambda member: (member[0].islower(), member))


def _escape_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = to_rst("\n".join(lines)).splitlines()


def to_rst(text: str) -> str:
    """A docstring as reStructuredText: its signs are signs and not markup, its formulas are blocks."""
    lines: list[str] = []
    section = example = False
    # A literal must not run over the end of a line where lines are escaped one by one.
    text = re.sub(r"``[^`]+``", lambda found: re.sub(r"\s*\n\s*", " ", found[0]), text)
    for line in text.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        section = bool(heading) or (section and (not line.strip() or line.startswith(" ")))
        example = (bool(heading) and line == "Example:") or (example and section)
        stands_in = line.startswith("    ") and not section
        if stands_in and lines and lines[-1].strip() and not lines[-1].startswith("    "):
            stands_in = False  # the second line of an item
        if stands_in and not _in_block(lines):
            lines += [".. code-block:: formula", ""]
        verbatim = stands_in or example or line.lstrip().startswith(">>>")
        lines.append(line if verbatim else escape(line))
    return "\n".join(lines)


def _in_block(lines: list[str]) -> bool:
    """Whether the last line that is not empty belongs to a block that stands in, or opens one of code."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith("    ") or last.endswith("::")


def escape(text: str) -> str:
    """Text whose ``literals`` alone are markup; `single` ones become literals."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    escaped = "".join(
        f"``{part.strip('`')}``" if k % 2 else re.sub(r"([\\*|_])", r"\\\1", part)
        for k, part in enumerate(parts)
    )
    return re.sub(r"(?<=\w``)(?=\w)", r"\\ ", escaped)  # ``Problem``s


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _table(widths: str, lines: list[str], kind: str = "", header_rows: int = 0) -> str:
    options = [f":widths: {widths}", *([f":class: {kind}"] if kind else [])]
    options += [f":header-rows: {header_rows}"] if header_rows else []
    content = "\n".join(lines).replace("\n", "\n   ")
    return ".. list-table::\n   " + "\n   ".join(options) + f"\n\n   {content}\n"
