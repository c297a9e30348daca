"""The catalogue of estimators: names, specifications, plugins. Imports torch only to create one."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..text import one_line
from .finding import Builtin, Registry
from .specification import Specification, parse, split_place

if TYPE_CHECKING:
    from ..base import Estimator

_METHODS = Path(__file__).parents[1] / "methods"


def _builtin(file: Path) -> Builtin:
    """The estimator of a file in methods/: the class called as the file is, and its docstring's first line.

    Read as text, since importing it would import torch. A file that is not finished says so when it is asked
    for, and disturbs nobody else.
    """
    words = file.stem.replace("_", "")
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        return Builtin("", "", f"{file.name} is no Python: {one_line(error)}")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == words:
            summary = (ast.get_docstring(node) or node.name).partition("\n")[0]
            package = __package__.rpartition(".")[0]
            return Builtin(f"{package}.{_METHODS.name}.{file.stem}:{node.name}", summary)
    return Builtin("", "", f"{file.name} has no class {words}, in any case")


#: What is compared when nobody says what: estimators of the ELBO's gradient that one would train a VAE with.
DEFAULT_NAMES = (
    "reparameterization",
    "score-function",
    "constant-baseline",
    "moving-average-baseline",
    "leave-one-out",
    "learned-baseline",
    "optimal-baseline",
    "exact",
)


def _builtins() -> dict[str, Builtin]:
    """Every estimator of methods/ by name, those that are compared by default first."""
    found = {file.stem.replace("_", "-"): file for file in sorted(_METHODS.glob("[!_]*.py"))}
    names = dict.fromkeys([*DEFAULT_NAMES, *found])
    return {name: _builtin(found[name]) for name in names}


_BUILTINS = _builtins()
#: The estimators of methods/, less files that are not finished.
BUILTIN_NAMES = tuple(name for name, builtin in _BUILTINS.items() if not builtin.unusable)


def _estimators_in(module: ModuleType) -> list[str]:
    """Names of the concrete Estimator classes that a module itself defines."""
    from ..base import Estimator

    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Estimator)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _is_estimator(thing: object) -> bool:
    from ..base import Estimator

    return isinstance(thing, Estimator)


REGISTRY = Registry(
    kind="estimator",
    group="elbograd.estimators",
    builtins=_BUILTINS,
    find_in_module=_estimators_in,
    is_made=_is_estimator,
)


def catalogue() -> dict[str, str]:
    """name -> what it is, in one line; third-party code is not imported."""
    return REGISTRY.catalogue()


def register(
    name: str, factory: Callable[..., Estimator] | None = None, *, summary: str = ""
) -> Callable[..., Any]:
    """Make an estimator known by name in this process; also a class decorator.

    Args:
        name: kebab-case.
        factory: class or function that returns an Estimator.
        summary: one line for the catalogue; by default the docstring's first.

    Raises:
        UsageError: the name is taken or not kebab-case.
    """

    def add(thing: Callable[..., Estimator]) -> Callable[..., Estimator]:
        REGISTRY.register(name, thing, summary)
        return thing

    return add if factory is None else add(factory)


def create(specification: str | Specification, **parameters: Any) -> Estimator:
    """Build an estimator from its specification.

    ``create("score-function")``, ``create("reparameterization", kl="sampled")``,
    ``create("reparameterization[kl=sampled]")``, ``create("package.module:MyEstimator")``,
    ``create("path/to/my_estimator.py")``, ``create("path/to/my_estimator.py:MyEstimator")``.

    Raises:
        UsageError: in one line, what is wrong with the name, a parameter or the plugin.
    """
    return create_under(0, specification, **parameters)


def create_under(seed: int, specification: str | Specification, /, **parameters: Any) -> Estimator:
    """`create`; what draws while it is built (a network's weights) draws from ``seed``, which is 0 there."""
    from ..base import Estimator

    parsed = parse(specification) if isinstance(specification, str) else specification
    estimator = REGISTRY.create(parsed, seed, **parameters)
    if not isinstance(estimator, Estimator):
        raise UsageError(f"{parsed} is a {type(estimator).__name__}, not an elbograd Estimator")
    estimator.label = label_of(Specification(parsed.name, {**parsed.parameters, **parameters}))
    return estimator


def label_of(specification: Specification) -> str:
    """How results call it: as it was written, less the folders of a path."""
    place, attribute = split_place(specification.name)
    name = Path(place).name if place.endswith(".py") else place
    return str(Specification(f"{name}:{attribute}" if attribute else name, specification.parameters))
