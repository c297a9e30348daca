"""Finding a thing by name: built in, registered, an entry point, a module or a file.

One `Registry` serves estimators and another problems. Listing imports nothing; a plugin is
imported when it is chosen, and only then can it fail.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UsageError
from ..isolation import contained, drawing_from
from ..text import clean, named, one_line, shortened
from .files import execute, executed_under, forget
from .specification import Specification, Value, parse, split_place

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
        is_made: whether an object is such a thing already, and nothing to call, though it be callable.
        drawn: whether it is drawn under a seed: the files and modules that hold it are then executed anew for
            each, else for the first.
        why_none: what a module in which none is found holds in its place; "" for nothing like one.
    """

    kind: str
    group: str
    builtins: Mapping[str, Builtin]
    find_in_module: Callable[[ModuleType], list[str]]
    is_made: Callable[[object], bool] = lambda thing: not callable(thing)
    drawn: bool = False
    why_none: Callable[[ModuleType], str] = lambda module: ""
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
        if name in self.catalogue() and not self._is_again(name, factory):
            raise UsageError(f"{self.kind} name {named(name)} is already taken")
        self.registered[name] = (factory, summary or (inspect.getdoc(factory) or name).splitlines()[0])

    def _is_again(self, name: str, factory: Callable[..., Any]) -> bool:
        """Whether the same file registers the same name, being executed under another seed."""
        if name not in self.registered or self.registered[name][0] is factory:
            return False
        known = self.registered[name][0]
        same = _source(known) == _source(factory) and None not in _source(known)
        return same and known.__module__ != factory.__module__

    def create(self, text: str | Specification, seed: int = 0, /, **parameters: Any) -> Any:
        """Build what the specification names; ``parameters`` are added to those in its brackets.

        Code of others runs as after seeding PyTorch, NumPy and Python with ``seed``, and what it makes is
        this call's own.

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
        factory = self.find(specification.name, seed)
        if self._made(factory):
            if chosen:
                raise UsageError(
                    f"{specification.name} takes no parameters, got {shortened(', '.join(chosen))}"
                )
            return self._own(factory, specification.name, seed)
        _check_parameters(factory, specification.name, chosen)
        try:
            with contained(), drawing_from(seed) if self._is_theirs(specification.name) else nullcontext():
                return factory(**chosen)
        except UsageError as error:
            raise UsageError(f"{whole}: {error}") from error
        except Exception as error:  # a plugin's constructor may raise anything
            raise UsageError(f"{whole}: {type(error).__name__}: {one_line(error)}") from error

    def accepts(self, text: str | Specification, parameter: str) -> bool:
        """Whether what the specification names takes ``parameter``."""
        specification = parse(text) if isinstance(text, str) else text
        factory = self.find(specification.name)
        return not self._made(factory) and parameter in inspect.signature(factory).parameters

    def _made(self, found: object) -> bool:
        return not isinstance(found, type) and (not callable(found) or self.is_made(found))

    def _own(self, made: Any, name: str, seed: int) -> Any:
        """A copy, to be trained while the module keeps what it made; of what has none, the thing itself.

        That is handed out once: the next time its file is executed anew.
        """
        try:
            return copy.deepcopy(made)
        except Exception:  # it may hold anything, such as an open file
            place, _ = split_place(name)
            if place.endswith(".py"):
                forget(_file(place), seed)
            _again.pop((place, seed), None)
            return made

    def _is_theirs(self, name: str) -> bool:
        return name not in self.builtins

    def find(self, name: str, seed: int = 0) -> Any:
        """The class, factory or object that ``name`` stands for, its file executed under a seed.

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
            point = points[0]
            what = f"{self.kind} {name!r} from {point.value}"
            return self._of_module(point.module, lambda _: guarded(point.load, what), what, seed)
        return self._find_elsewhere(name, seed)

    def _find_builtin(self, name: str) -> Any:
        builtin = self.builtins[name]
        if builtin.unusable:
            raise UsageError(f"{self.kind} {name!r} cannot be used: {builtin.unusable}")
        module, _, attribute = builtin.location.partition(":")
        return getattr(guarded(lambda: importlib.import_module(module), f"{self.kind} {name!r}"), attribute)

    def _find_elsewhere(self, name: str, seed: int) -> Any:
        place, attribute = split_place(name)
        what = shortened(clean(name))
        if place.endswith(".py"):
            return self._attribute(module_of_file(place, seed, self.drawn), attribute, what)
        if attribute:
            return self._of_module(place, lambda module: self._attribute(module, attribute, what), what, seed)
        if (kind := _other_kind_of_file(name)) is not None:
            raise UsageError(f"{what} is {kind}")
        known = list(self.catalogue())
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"unknown {self.kind} {named(name)}: {hint}choose from {', '.join(known)}, "
            f"or give a file path.py[:name] or module:name"
        )

    def _of_module(self, place: str, get: Callable[[ModuleType], Any], what: str, seed: int) -> Any:
        """What a module holds; of what was made while it was imported, one made under the seed.

        For that the module, and none that it imports, is executed anew.
        """
        with drawing_from(0):
            found = get(guarded(lambda: importlib.import_module(place), what))
        if not (self.drawn and self._made(found)):
            return found
        names = [name for name, value in vars(sys.modules[place]).items() if value is found]
        again = guarded(lambda: _imported_again(place, seed), what) if names else None
        return found if again is None else getattr(again, names[0], found)

    def _attribute(self, module: ModuleType, attribute: str, name: str) -> Any:
        if attribute:
            if not hasattr(module, attribute):
                found = ", ".join(self.find_in_module(module)) or "none"
                raise UsageError(f"{name}: no {named(attribute)} there ({self.kind}s found: {found})")
            return getattr(module, attribute)
        found_names = self.find_in_module(module)
        if len(found_names) != 1:
            found = ", ".join(found_names) or "none"
            what = f"{name}: expected one {self.kind} in the file, found {found}"
            raise UsageError(f"{what}; add :name" if found_names else f"{what}{self._why_none_in(module)}")
        return getattr(module, found_names[0])

    def _entry_points(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for point in _installed(self.group, tuple(sys.path)):
            found.setdefault(point.name, []).append(point)
        return found

    def _why_none_in(self, module: ModuleType) -> str:
        """How a message goes on that there is none in the file."""
        instead = self.why_none(module)
        return f": {instead}" if instead else f"; elbograd new-{self.kind} writes one to start from"


def _other_kind_of_file(name: str) -> str | None:
    """What there is of this name that is no file of Python, and what to give in its place."""
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            files = sorted(path.glob("*.py"))
            return (
                f"a folder: give a file in it, such as {path / (files[0].name if files else 'my_model.py')}"
            )
        if not path.is_file():
            return None
    except OSError:  # too long
        return None
    if path.suffix == ".ipynb":
        return f"a notebook: save what builds it as a .py file (jupyter nbconvert --to script {name})"
    return "no .py file: rename it to end in .py if Python is what it holds"


@cache
def _installed(group: str, _path: tuple[str, ...]) -> EntryPoints:
    """The entry points of installed packages; reading them all takes longer than a small measurement."""
    return entry_points(group=group)


def _source(factory: Callable[..., Any]) -> tuple[str | None, str | None]:
    """The file and the name in it of what makes a thing."""
    module = sys.modules.get(getattr(factory, "__module__", ""))
    return getattr(module, "__file__", None), getattr(factory, "__qualname__", None)


def load_plugin(place: str) -> None:
    """Import a module or a .py file for what it registers.

    Raises:
        UsageError: it does not load.
    """
    if place.endswith(".py"):
        module_of_file(place)
    else:
        guarded(lambda: importlib.import_module(place), f"plugin {named(place)}")


def module_of_file(place: str, seed: int = 0, drawn: bool = True) -> ModuleType:
    """A file's module under the seed; of what need not be drawn, one that is there already will do."""
    path = _file(place)
    if not drawn and not executed_under(path, seed):
        seed = 0
    return guarded(lambda: execute(path, seed), shortened(clean(place)))


_again: dict[tuple[str, int], ModuleType] = {}


def _imported_again(place: str, seed: int) -> ModuleType | None:
    """A second module from an installed one's source, executed under a seed; None where it has no source."""
    if (place, seed) in _again:
        return _again[place, seed]
    first = sys.modules[place]
    spec = importlib.util.find_spec(place)
    if spec is None or spec.loader is None or not spec.has_location:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[place] = module
    try:
        with drawing_from(seed):
            spec.loader.exec_module(module)
    finally:
        sys.modules[place] = first
    _again[place, seed] = module
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
    except UsageError as error:
        if str(error).startswith(f"{what}: "):
            raise
        raise UsageError(f"{what}: {error}") from error
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
