"""Finding a thing by name: built in, registered, an entry point, a module or a file.

One `Registry` serves estimators and another problems. Listing imports nothing; a plugin is
imported when it is chosen, and only then can it fail.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UsageError
from ..isolation import contained
from ..text import clean, named, one_line, shortened
from .specification import Specification, Value, parse

#: A file as the user wrote it -> where this process has a copy, on a machine that cannot see the user's.
COPIES: dict[str, str] = {}


@dataclass(frozen=True)
class Builtin:
    """A thing that ships with elbograd.

    Attributes:
        location: where it lives, ``package.module:attribute``.
        summary: one line.
        unusable: why it cannot be had, as of a file that is not finished; "" where it can.
    """

    location: str
    summary: str
    unusable: str = ""


@dataclass
class Registry:
    """Names and what they stand for.

    Attributes:
        kind: "estimator" or "problem", for messages.
        group: the entry-point group third parties register with.
        builtins: the names that ship with elbograd.
        find_in_module: picks the one plugin of a module given without ``:name``.
    """

    kind: str
    group: str
    builtins: Mapping[str, Builtin]
    find_in_module: Callable[[ModuleType], list[str]]
    registered: dict[str, tuple[Callable[..., Any], str]] = field(default_factory=dict)

    def catalogue(self) -> dict[str, str]:
        """name -> one line on what it is, built-ins first; third-party code is not imported."""
        lines = {
            name: f"cannot be used: {b.unusable}" if b.unusable else b.summary
            for name, b in self.builtins.items()
        }
        lines |= {name: summary for name, (_, summary) in self.registered.items()}
        for name, points in self._entry_points().items():
            origin = " and ".join(f"{p.dist.name if p.dist else '?'} ({p.value})" for p in points)
            taken = name in lines or len(points) > 1
            lines[name] = f"name taken twice, cannot be used: {origin}" if taken else f"from {origin}"
        return lines

    def register(self, name: str, factory: Callable[..., Any], summary: str = "") -> None:
        """Make ``factory`` known as ``name`` in this process.

        Raises:
            UsageError: the name is taken, or is not kebab-case.
        """
        if not name.replace("-", "").isalnum() or name != name.lower():
            raise UsageError(f"{self.kind} name {named(name)} is not kebab-case")
        if name in self.catalogue():
            raise UsageError(f"{self.kind} name {named(name)} is already taken")
        self.registered[name] = (factory, summary or (inspect.getdoc(factory) or name).splitlines()[0])

    def create(self, text: str | Specification, **parameters: Any) -> Any:
        """Build what the specification names; ``parameters`` are added to those in its brackets.

        Raises:
            UsageError: unknown name, malformed brackets, unknown or bad parameter, or a plugin
                that does not load.
        """
        specification = parse(text) if isinstance(text, str) else text
        if not isinstance(specification, Specification):
            raise UsageError(f"{self.kind} {shortened(clean(repr(text)))} is no name: give a string")
        whole = shortened(str(specification))
        for key in parameters.keys() & specification.parameters.keys():
            raise UsageError(f"{shortened(key)} is given twice for {whole}")
        chosen: dict[str, Any] = {**specification.parameters, **parameters}
        for key, value in chosen.items():
            if isinstance(value, list):
                raise UsageError(f"{whole}: {shortened(key)} is a list, which stands for a grid of several")
        factory = self.find(specification.name)
        if not callable(factory):
            if chosen:
                raise UsageError(
                    f"{specification.name} takes no parameters, got {shortened(', '.join(chosen))}"
                )
            return factory
        _check_parameters(factory, specification.name, chosen)
        try:
            with contained():
                return factory(**chosen)
        except UsageError as error:
            raise UsageError(f"{whole}: {error}") from error
        except Exception as error:  # a plugin's constructor may raise anything
            raise UsageError(f"{whole}: {type(error).__name__}: {one_line(error)}") from error

    def accepts(self, text: str | Specification, parameter: str) -> bool:
        """Whether what the specification names takes ``parameter``."""
        specification = parse(text) if isinstance(text, str) else text
        factory = self.find(specification.name)
        return callable(factory) and parameter in inspect.signature(factory).parameters

    def find(self, name: str) -> Any:
        """The class, factory or object that ``name`` stands for.

        Raises:
            UsageError: nothing of that name, or a plugin that does not load.
        """
        points = self._entry_points().get(name, ())
        if len(points) + (name in self.builtins) + (name in self.registered) > 1:
            raise UsageError(f"{self.kind} {name!r} is ambiguous: {self.catalogue()[name]}")
        if name in self.builtins:
            return self._find_builtin(name)
        if name in self.registered:
            return self.registered[name][0]
        if points:
            return guarded(points[0].load, f"{self.kind} {name!r} from {points[0].value}")
        return self._find_elsewhere(name)

    def _find_builtin(self, name: str) -> Any:
        builtin = self.builtins[name]
        if builtin.unusable:
            raise UsageError(f"{self.kind} {name!r} cannot be used: {builtin.unusable}")
        module, _, attribute = builtin.location.partition(":")
        return getattr(guarded(lambda: importlib.import_module(module), f"{self.kind} {name!r}"), attribute)

    def _find_elsewhere(self, name: str) -> Any:
        place, _, attribute = name.partition(":")
        what = shortened(clean(name))
        if place.endswith(".py"):
            return self._attribute(_load_file(place), attribute, what)
        if attribute:
            return self._attribute(guarded(lambda: importlib.import_module(place), what), attribute, what)
        known = list(self.catalogue())
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"unknown {self.kind} {named(name)}: {hint}choose from {', '.join(known)}, "
            f"or give a file path.py[:name] or module:name"
        )

    def _attribute(self, module: ModuleType, attribute: str, name: str) -> Any:
        if attribute:
            if not hasattr(module, attribute):
                found = ", ".join(self.find_in_module(module)) or "none"
                raise UsageError(f"{name}: no {named(attribute)} there ({self.kind}s found: {found})")
            return getattr(module, attribute)
        found_names = self.find_in_module(module)
        if len(found_names) != 1:
            found = ", ".join(found_names) or "none"
            raise UsageError(f"{name}: expected one {self.kind} in the file, found {found}; add :name")
        return getattr(module, found_names[0])

    def _entry_points(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for point in _installed(self.group, tuple(sys.path)):
            found.setdefault(point.name, []).append(point)
        return found


@cache
def _installed(group: str, _path: tuple[str, ...]) -> EntryPoints:
    """The entry points of installed packages; reading them all takes longer than a small measurement."""
    return entry_points(group=group)


def load_plugin(place: str) -> None:
    """Import a module or a .py file for what it registers.

    Raises:
        UsageError: it does not load.
    """
    if place.endswith(".py"):
        _load_file(place)
    else:
        guarded(lambda: importlib.import_module(place), f"plugin {named(place)}")


def _load_file(place: str) -> ModuleType:
    path = _file(place)
    # The name depends on the whole path, so that two files called alike stay apart.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has one
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        guarded(lambda: spec.loader.exec_module(module), shortened(place))  # type: ignore[union-attr]
    except UsageError:
        del sys.modules[name]
        raise
    return module


def _file(place: str) -> Path:
    try:
        path = Path(COPIES.get(place, place)).expanduser().resolve()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long; the home of nobody; a NUL in it
        pass
    raise UsageError(f"{shortened(clean(place))}: no such file")


def guarded(load: Callable[[], Any], what: str) -> Any:
    """Run import code that is not ours, or not finished.

    Args:
        load: imports.
        what: for the message.

    Raises:
        UsageError: whatever went wrong, in one line.
    """
    try:
        with contained():
            return load()
    except UsageError:
        raise
    except SyntaxError as error:
        raise UsageError(f"{what}: does not load: line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what}: does not load: {type(error).__name__}: {one_line(error)}") from error


def _check_parameters(factory: Callable[..., Any], name: str, given: Mapping[str, Value]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in given:
        if key not in parameters:
            valid = ", ".join(parameters) or "none"
            raise UsageError(f"unknown parameter {named(key)} of {name}: choose from {valid}")
    for key, parameter in parameters.items():
        if (
            key not in given
            and parameter.default is parameter.empty
            and parameter.kind
            not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
        ):
            raise UsageError(f"{name} needs a value for {key}: {name}[{key}=...]")
