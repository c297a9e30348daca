"""Executing a user's .py file as `python file.py` would, and under a seed.

- It may import the files beside it, also later, inside functions. Two files that are called alike in two
  folders stay apart, and so do their neighbours: what a file imports is looked for beside that file.
- It is executed once for a seed, with that seed in all global generators: weights that are made while it is
  imported are the same in every process, and others under another seed. So are its neighbours.

Not covered: `importlib.import_module` and unpickling in another process look along ``sys.path``, at the end
of which the folder stands; of two neighbours called alike they find the first.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from ..isolation import drawing_from

_KEPT = 4  # executions of one file under different seeds: each may hold a data set
_executed: dict[Path, OrderedDict[int, ModuleType]] = {}
_texts: dict[Path, bytes] = {}  # what was executed


class NameTaken(ImportError):
    """A file beside the user's hides a module that others need."""


def execute(path: Path, seed: int) -> ModuleType:
    """The module of a file, executed under a seed; the same object for the same two while the file stays.

    Raises:
        Exception: whatever the file raises.
    """
    kept = _kept(path)
    if seed in kept:
        kept.move_to_end(seed)
        return kept[seed]
    module = _executed_now(path, seed)
    kept[seed] = module
    if len(kept) > _KEPT:
        _, oldest = kept.popitem(last=False)
        sys.modules.pop(oldest.__name__, None)
    return module


def executed_under(path: Path, seed: int) -> bool:
    """Whether `execute` would find it done."""
    return seed in _kept(path)


def _kept(path: Path) -> OrderedDict[int, ModuleType]:
    """The executions of a file as it is now; those of what it was are forgotten."""
    text = path.read_bytes()
    if _texts.get(path) != text:
        _texts[path] = text
        for module in _executed.pop(path, {}).values():
            sys.modules.pop(module.__name__, None)
    return _executed.setdefault(path, OrderedDict())


def forget(path: Path, seed: int) -> None:
    """Have the file executed anew the next time."""
    _executed.get(path, OrderedDict()).pop(seed, None)


def _executed_now(path: Path, seed: int) -> ModuleType:
    # The name depends on the whole path, so that two files called alike stay apart.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}" + (f"_{seed}" if seed else "")
    neighbours = _Neighbours(path.parent, seed)
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path), neighbours))
    assert spec is not None and spec.loader is not None  # a loader is given
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # at the end, where it hides nothing
    sys.modules[name] = module
    try:
        with drawing_from(seed):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Loader(SourceFileLoader):
    """Executes a file whose ``import`` statements look beside it first."""

    def __init__(self, name: str, path: str, neighbours: _Neighbours) -> None:
        super().__init__(name, path)
        self.neighbours = neighbours

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError  # bytecode is kept by the second, and a file may be changed twice in one

    def exec_module(self, module: ModuleType) -> None:
        # Functions take their builtins from here when they are made, so that their imports go the same way.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self.neighbours.import_}
        super().exec_module(module)


class _Neighbours(MetaPathFinder):
    """The files and packages in a folder, as modules of those executed there under one seed.

    Args:
        folder: absolute.
        seed: that they are executed under.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._modules: dict[str, ModuleType] = {}
        self._wanted = ""

    def import_(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What ``import`` statements call."""
        top = name.partition(".")[0] if level == 0 else str((globals or {}).get("__package__") or "")
        top = top.partition(".")[0]
        if not top or self._file(top) is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        with self._in_place(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Of the neighbour that is being imported, or a module inside it."""
        if name.partition(".")[0] != self._wanted:
            return None
        folder = self._folder if path is None else Path(next(iter(path), ""))
        file = _module_file(folder, name.rpartition(".")[2])
        if file is None:
            return None
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(name, str(file), self)
        return importlib.util.spec_from_file_location(
            name, file, loader=loader, submodule_search_locations=inside
        )

    def _file(self, top: str) -> Path | None:
        return _module_file(self._folder, top)

    @contextmanager
    def _in_place(self, top: str) -> Iterator[None]:
        """Inside, ``sys.modules`` holds this folder's module of that name; others' come back after."""
        there = {name: m for name, m in sys.modules.items() if name.partition(".")[0] == top}
        others = {name: module for name, module in there.items() if not self._is_own(name, module)}
        self._check(top, others.get(top))
        for name in others:
            del sys.modules[name]
        sys.modules.update({n: m for n, m in self._modules.items() if n.partition(".")[0] == top})
        wanted, self._wanted = self._wanted, top
        sys.meta_path.insert(0, self)
        try:
            if top in self._modules:
                yield
            else:
                with drawing_from(self._seed):
                    yield
        finally:
            self._wanted = wanted
            sys.meta_path.remove(self)
            ours = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == top}
            self._modules.update(ours)
            if others:
                for name in ours:
                    del sys.modules[name]
                sys.modules.update(others)

    def _is_own(self, name: str, module: ModuleType) -> bool:
        """Whether a module is of this folder; also one whose import is under way, which may import itself."""
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        return self._modules.get(name) is module or getattr(loader, "neighbours", None) is self

    def _check(self, top: str, other: ModuleType | None) -> None:
        """Refuse a neighbour that stands for a module which the rest of this process uses."""
        file = self._file(top)
        assert file is not None
        of_a_user = other is None or isinstance(getattr(other, "__loader__", None), _Loader)
        here = getattr(other, "__file__", None) == str(file)
        if top in sys.stdlib_module_names or not (of_a_user or here or _beside(other)):
            raise NameTaken(f"{file.name} has the name of the module {top} that others import: rename it")


def _beside(module: ModuleType | None) -> bool:
    """Whether a module was found in no installation: the user's own, in another folder."""
    file = getattr(module, "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _module_file(folder: Path, name: str) -> Path | None:
    """The file of a module or a package of that name."""
    for file in (folder / name / "__init__.py", folder / f"{name}.py"):
        if file.is_file():
            return file
    return None
