"""Reading `name[key=value,key=value]`: the notation for an estimator or a problem."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from ..errors import UsageError
from ..text import named, shortened

Value = str | int | float | bool | None
_WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}
_FILE_ENDS = re.compile(r"\.py(?=$|[:\[])")  # where a path may end: a name in it follows, or parameters
_AFTER_FILE = re.compile(r"(:[^:/\\\[\]]*)?(\[.*\])?", re.DOTALL)


@dataclass(frozen=True)
class Specification:
    """A name and its parameters; a parameter given as a list is a grid."""

    name: str
    parameters: dict[str, Value | list[Value]] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        inside = ",".join(f"{key}={_write(value)}" for key, value in self.parameters.items())
        return f"{self.name}[{inside}]"


def parse(text: str) -> Specification:
    """Read one specification.

    >>> parse("score-function[kl=sampled]")
    Specification(name='score-function', parameters={'kl': 'sampled'})

    Raises:
        UsageError: the brackets are malformed.
    """
    text = text.strip()
    file, rest = _split_file(text)
    name, bracket, rest = rest.partition("[")
    name = file + name
    if not bracket:
        if "]" in text.removeprefix(file) or not text:
            raise UsageError(f"malformed {named(text)}: expected name or name[key=value,key=value]")
        return Specification(text)
    if not rest.endswith("]") or not name:
        raise UsageError(f"malformed {named(text)}: expected name[key=value,key=value]")
    parameters: dict[str, Value | list[Value]] = {}
    for item in _split(rest[:-1], text):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key.isidentifier() or not equals or not value:
            raise UsageError(f"malformed {named(text)}: {named(item.strip())} is not key=value")
        if key in parameters:
            raise UsageError(f"malformed {named(text)}: {shortened(key)} is given twice")
        parameters[key] = _read(value, text)
    return Specification(name.strip(), parameters)


def expand(text: str) -> list[Specification]:
    """All specifications of a grid: a list value stands for each of its elements.

    >>> [str(s) for s in expand("vae[latent_dim=[2,8]]")]
    ['vae[latent_dim=2]', 'vae[latent_dim=8]']
    """
    grid = parse(text)
    axes = [v if isinstance(v, list) else [v] for v in grid.parameters.values()]
    return [
        Specification(grid.name, dict(zip(grid.parameters, point, strict=True)))
        for point in itertools.product(*axes)
    ]


def split_place(name: str) -> tuple[str, str]:
    """The file or module of a name without parameters, and what is meant in it; "" where that is not said.

    A path may hold colons, as behind the letter of a drive.

    >>> split_place("package.module:thing"), split_place("C:/models/vae.py:problem"), split_place("vae.py")
    (('package.module', 'thing'), ('C:/models/vae.py', 'problem'), ('vae.py', ''))
    """
    file, rest = _split_file(name)
    if file:
        return file, rest.removeprefix(":")
    place, _, attribute = name.partition(":")
    return place, attribute


def _split_file(text: str) -> tuple[str, str]:
    """The path to a .py file, whose names may have brackets and colons in them, and what follows it."""
    ends = [found.end() for found in _FILE_ENDS.finditer(text)]
    fitting = (end for end in ends if _AFTER_FILE.fullmatch(text, end))
    end = next(fitting, ends[0] if ends and "[" not in text[: ends[0]] else 0)
    return text[:end], text[end:]


def _split(inside: str, text: str) -> list[str]:
    """Split at the commas that are not inside a list."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(inside):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth not in (0, 1):
            raise UsageError(f"malformed {named(text)}: brackets do not match")
        if character == "," and depth == 0:
            items.append(inside[start:position])
            start = position + 1
    if depth:
        raise UsageError(f"malformed {named(text)}: brackets do not match")
    return [*items, inside[start:]]


def _read(text: str, whole: str) -> Value | list[Value]:
    if text.startswith("["):
        if not text.endswith("]") or not text[1:-1].strip():
            raise UsageError(f"malformed {named(whole)}: {named(text)} is not a list of values")
        return [_read_one(item.strip()) for item in text[1:-1].split(",")]
    return _read_one(text)


def _read_one(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _write(value: Value | list[Value]) -> str:
    if isinstance(value, list):
        return f"[{','.join(_write(v) for v in value)}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)
