"""From what a user names to what is examined: also a file of which no problem can be made yet."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import module_of_file
from ...estimators.plugins.registry import label_of
from ...estimators.plugins.specification import Specification, parse, split_place
from ...estimators.text import clean, shortened
from ..problems.registry import REGISTRY, almost_problems


class Loaded(NamedTuple):
    """What a specification names.

    Attributes:
        label: what results call it.
        specification: that `elbograd variance -p` takes; "" where there is none.
        thing: it, which need not be a problem; None where ``fault`` says why there is none.
        fault: in one line; "" where there is none.
    """

    label: str
    specification: str
    thing: object = None
    fault: str = ""


def load(text: str, seed: int = 0) -> Loaded:
    """What a specification names, or what keeps it from being loaded.

    Raises:
        UsageError: there is nothing of that name: it is not that the file is wrong, but what was asked.
    """
    specification = parse(text)
    place, name = split_place(specification.name)
    label = shortened(label_of(specification))
    if not place.endswith(".py"):
        return Loaded(label, text, REGISTRY.create(specification, seed))
    if not Path(place).expanduser().is_file():
        REGISTRY.find(specification.name, seed)  # says so
    try:
        module = module_of_file(place, seed, drawn=True)
    except UsageError as error:
        return Loaded(label, text, fault=_after((place, shortened(clean(place))), error))
    if not name:
        name, fault = _one_in(module, place)
        if fault:
            return Loaded(label, text, fault=fault)
        specification = Specification(f"{place}:{name}", specification.parameters)
    elif not hasattr(module, name):
        REGISTRY.find(specification.name, seed)  # says so
    try:
        return Loaded(label, text, REGISTRY.create(specification, seed))
    except UsageError as error:
        return Loaded(label, text, fault=_after((place, specification.name, str(specification)), error))


def _one_in(module: ModuleType, place: str) -> tuple[str, str]:
    """The name of the problem in a file that is given without one, or of what comes nearest; or the fault."""
    found = REGISTRY.find_in_module(module)
    if len(found) > 1:
        raise UsageError(f"{place}: expected one problem in the file, found {', '.join(found)}; add :name")
    almost = found or almost_problems(module)
    if almost:
        return almost[0], ""
    own = [name for name in vars(module) if not name.startswith("_")]
    what = "there is no problem in the file" if own else "the file is empty"
    return "", (
        f"{what}: build one, problem = from_vae(encoder, decoder, data) (from elbograd.benchmarks.problems), "
        f"or let elbograd new-problem write a file to start from"
    )


def _after(places: tuple[str, ...], error: UsageError) -> str:
    """A message without the name of the file, which stands above it."""
    text = str(error)
    while place := next((place for place in places if text.startswith(f"{place}: ")), ""):
        text = text.removeprefix(f"{place}: ")
    return text
