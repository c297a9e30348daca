"""Reading the imports of the two packages, and holding them to the floors that their rooms stand on."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def modules(root: Path, package: str) -> dict[str, Path]:
    """Dotted name -> file, of a package below ``root``."""
    found = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of ``known`` that a module imports relatively, wherever the statement stands."""
    here = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                yield from [m for m in (f"{base}.{alias.name}", base) if m in known][:1]


def room_of(module: str) -> str:
    """The room of a module: a folder, or a file, right below its package; its face has the package's name."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or package


def crossings(root: Path, package: str, floors: Sequence[Sequence[str]]) -> list[str]:
    """Imports from one room to another that do not run to a lower floor, each in a line."""
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    known = modules(root, package)
    found = []
    for name, file in known.items():
        for target in imported(name, file, known):
            source, aim = room_of(name), room_of(target)
            if source != aim and floor_of[aim] >= floor_of[source]:
                found.append(f"{name} imports {target}: from {source} to {aim}")
    return found


def circle(root: Path, package: str) -> list[str]:
    """Modules that import each other in a circle, the first that is found; empty where there is none."""
    known = modules(root, package)
    graph = {name: set(imported(name, file, known)) - {name} for name, file in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
