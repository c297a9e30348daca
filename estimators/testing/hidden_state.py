"""Where an estimator may keep a state outside of itself: in its class, its file, or behind its functions."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base import Estimator

_PLAIN = (bool, int, float, complex, str, bytes, Tensor, np.ndarray, np.generic)
_CONTAINERS = (list, tuple, dict, set, deque)
_SOURCES = (torch.Generator, Random, np.random.Generator, np.random.RandomState, count)
_OF_OTHERS = ("torch", "builtins", "abc", "typing")


def hidden_values(estimator: Estimator) -> dict[str, Any]:
    """What is kept in class attributes, in the variables of their files, and in closures, by name.

    Numbers, text, tensors, arrays, generators, and lists, dictionaries and the like of these: of the classes
    of the estimator and its submodules, down to those of torch, and of files beside theirs, of which they
    import functions or classes; and of objects of classes of these files. Not seen: an object of another
    class, and what lies outside of Python.
    """
    return dict(_values(estimator))


def _values(estimator: Estimator) -> Iterator[tuple[str, Any]]:
    classes: dict[type, None] = {}
    for module in estimator.modules():
        classes |= {kind: None for kind in type(module).__mro__ if _file_of(kind) is not None}
    files = _files(classes)
    seen: set[int] = set()
    for module in estimator.modules():
        for name, value in vars(module).items():
            if not _simple(value):  # an attribute, which is no secret
                yield from _inside(value, name, files, seen)
    for kind in classes:
        for name, value in vars(kind).items():
            if not name.startswith("__") or isinstance(value, FunctionType):
                yield from _inside(value, f"{kind.__name__}.{name}", files, seen)
    for file in files:
        for name, value in file.items():
            theirs = isinstance(value, FunctionType) and value.__globals__ is not file
            if not name.startswith("__") and not theirs:
                yield from _inside(value, f"{name} of {Path(file.get('__file__') or '').name}", files, seen)


def _inside(
    value: object, name: str, files: list[dict[str, Any]], seen: set[int]
) -> Iterator[tuple[str, Any]]:
    """What is plain, and all that is kept behind functions, and by objects of classes of these files."""
    if _simple(value):
        yield name, value
        return
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    own = type(value) is SimpleNamespace or any(_file_of(type(value)) is file for file in files)
    if id(value) in seen or not (isinstance(function, FunctionType) or own):
        return
    seen.add(id(value))
    kept = _behind(function) if isinstance(function, FunctionType) else vars(value)
    for variable, each in kept.items():
        yield from _inside(each, f"{name}'s {variable}", files, seen)


def _files(classes: Iterable[type]) -> list[dict[str, Any]]:
    """The variables of the files of classes, and of those beside them from which they import."""
    waiting = [file for kind in classes if (file := _file_of(kind)) is not None]
    found: dict[int, dict[str, Any]] = {}
    while waiting:
        file = waiting.pop()
        if id(file) in found:
            continue
        found[id(file)] = file
        if file["__name__"].partition(".")[0] == __name__.partition(".")[0]:
            continue  # the suite's own
        folder = Path(file.get("__file__") or ".").parent
        for value in list(file.values()):
            other = vars(value) if isinstance(value, ModuleType) else _file_of(value)
            if other is not None and Path(other.get("__file__") or "").parent == folder:
                waiting.append(other)
    return list(found.values())


def _file_of(value: object) -> dict[str, Any] | None:
    """The variables of the file that a function or a class is from; None of others, and of torch's."""
    if isinstance(value, FunctionType):
        return value.__globals__
    if not isinstance(value, type) or value.__module__.partition(".")[0] in _OF_OTHERS:
        return None
    functions = (getattr(each, "__func__", each) for each in vars(value).values())
    written = (f for f in functions if isinstance(f, FunctionType) and f.__module__ == value.__module__)
    own = next((f.__globals__ for f in written), None)
    module = sys.modules.get(value.__module__)
    return own if own is not None else None if module is None else vars(module)


def _behind(function: FunctionType) -> dict[str, Any]:
    """What a function keeps: attributes of its own, defaults, and the cells of its closure."""
    kept: dict[str, Any] = dict(vars(function))
    kept |= {f"default {i}": default for i, default in enumerate(function.__defaults__ or ())}
    kept |= function.__kwdefaults__ or {}
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            kept[variable] = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    return kept


def _simple(value: object) -> bool:
    if isinstance(value, dict):
        return all(_simple(part) for pair in value.items() for part in pair)
    if isinstance(value, _CONTAINERS):
        return all(map(_simple, value))
    return value is None or isinstance(value, (*_PLAIN, *_SOURCES))
