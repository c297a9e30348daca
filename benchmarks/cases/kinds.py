"""The kinds of benchmark: every subclass of `Benchmark` that a file of this folder defines, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import guarded
from . import __path__ as _folder
from .base import Benchmark, Case

Kind = type[Benchmark[Any]]


def kinds() -> dict[str, Kind]:
    """Name -> kind, in the order of the commands.

    Raises:
        UsageError: a file of this folder does not load.
    """
    found = {**_defined_here(), **_registered}
    return dict(sorted(found.items(), key=lambda item: (item[1].position, item[0])))


def find(name: str) -> Kind:
    """The kind of this name.

    Raises:
        UsageError: there is none.
    """
    known = kinds()
    if name not in known:
        raise UsageError(f"unknown kind of benchmark {name!r}: choose from {', '.join(known)}")
    return known[name]


def register(kind: Kind) -> Kind:
    """Add a kind that is defined elsewhere; usable as a decorator.

    Raises:
        UsageError: the name is taken.
    """
    if kinds().get(kind.name, kind) is not kind:
        raise UsageError(f"there is a kind of benchmark called {kind.name!r} already")
    _registered[kind.name] = kind
    return kind


def case_from_json(values: Mapping[str, Any]) -> Case[Any]:
    """The case that `Case.as_json` was called on.

    Raises:
        UsageError: it is of a kind that is not known here.
    """
    rest = {name: value for name, value in values.items() if name != "benchmark"}
    kind = find(values["benchmark"])
    return Case(kind=kind, **{**rest, "settings": kind.settings.from_json(values["settings"])})


_registered: dict[str, Kind] = {}


def _load(name: str) -> ModuleType:
    module: ModuleType = guarded(
        lambda: import_module(f"{__package__}.{name}"), f"benchmarks/cases/{name}.py"
    )
    return module


@cache
def _defined_here() -> dict[str, Kind]:
    modules = [_load(module.name) for module in iter_modules(_folder)]
    return {
        value.name: value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Benchmark) and value.__module__ == module.__name__
        if "name" in vars(value)
    }
