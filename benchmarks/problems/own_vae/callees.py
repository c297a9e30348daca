"""What a user gives to be called: a module, a method of one, or several modules in a row."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from torch import Tensor, nn

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from ..arguments import shown
from .losses import is_loss

_METHODS = {"encoder": "encode", "decoder": "decode"}  # of a module without a forward


class Heads(nn.Module):
    """Several modules side by side: x -> (module(x), ...)."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        for index, module in enumerate(modules):
            self.add_module(str(index), module)

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        """What each of them returns."""
        return tuple(module(x) for module in self.children())


class Callee:
    """A module, or a method of one, that is called as it is.

    Args:
        given: a module, a method of one, a `functools.partial` of these, or a list of modules, called one
            after the other, in which a tuple holds modules side by side.
        role: how users call it, for messages.

    Attributes:
        owner: the module whose parameters it may use; None where it is a function.
        whole: whether all of the owner's parameters are its own.

    Raises:
        UsageError: it is none of these, or a function that hides modules.
    """

    def __init__(self, given: object, role: str) -> None:
        if isinstance(given, list):
            given = _in_a_row(given, role)
        given = getattr(given, "_orig_mod", given)  # of torch.compile
        if isinstance(given, nn.Module) and type(given).forward is nn.Module.forward:  # which has none
            given = getattr(given, _METHODS.get(role, ""), given)
        if isinstance(given, type) or not callable(given):
            hint = f": give an instance, {given.__name__}(...)" if isinstance(given, type) else ""
            raise UsageError(f"{role} is {shown(given)}, not a torch.nn.Module or a method of one{hint}")
        self.role = role
        self.call: Callable[..., Any] = given
        inner: Any = given
        hidden: dict[str, object] = {}
        while isinstance(inner, functools.partial):
            hidden |= {f"argument {index}": thing for index, thing in enumerate(inner.args)} | inner.keywords
            inner = inner.func
        self.whole = isinstance(inner, nn.Module)
        owner = inner if self.whole else getattr(inner, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) else None
        _check_hides_none(hidden if self.owner is not None else hidden | _seen_by(inner), role)

    def __call__(self, *arguments: object) -> Any:
        """Call it.

        Raises:
            UsageError: it fails; in one line, with the shapes it was given.
        """
        try:
            return self.call(*arguments)
        except UsageError:
            raise
        except Exception as error:  # a user's module may raise anything
            shapes = ", ".join(_shape(argument) for argument in arguments)
            raise UsageError(
                f"{self.role}({shapes}) fails ({type(error).__name__}: {one_line(error)})"
            ) from error

    def takes(self, positions: int) -> bool:
        """Whether it can be called with so many arguments."""
        target = self.call.forward if isinstance(self.call, nn.Module) else self.call
        try:
            inspect.signature(target).bind(*[None] * positions)
        except (TypeError, ValueError):
            return False
        return True

    def takes_fewer(self, positions: int) -> bool:
        """Whether it can be called with some smaller number of arguments."""
        return any(self.takes(fewer) for fewer in range(positions))


def _in_a_row(given: list[Any], role: str) -> nn.Module:
    modules = [Heads(*part) if isinstance(part, tuple) else part for part in given]
    for module in modules:
        if not isinstance(module, nn.Module):
            raise UsageError(f"{role} is a list with {shown(module)} in it, which is no torch.nn.Module")
    return nn.Sequential(*modules)


def _check_hides_none(seen: Mapping[str, object], role: str) -> None:
    for name, thing in seen.items():
        if is_loss(thing):
            continue
        if isinstance(thing, nn.Module) or (isinstance(thing, Tensor) and thing.requires_grad):
            raise UsageError(
                f"{role} is a function that uses {name}, whose parameters cannot be seen from outside: give "
                f"a torch.nn.Module, a method of one, or a list of modules, called one after the other"
            )


def _seen_by(function: Any) -> dict[str, object]:
    """What a function, or an object that is called, finds outside its arguments, by name."""
    owner = getattr(function, "__self__", None)
    seen: dict[str, object] = dict(getattr(owner, "__dict__", {}))
    plain = getattr(function, "__func__", function)
    if not inspect.isfunction(plain):
        return seen | dict(getattr(function, "__dict__", {}))
    outside = inspect.getclosurevars(plain)
    for name, thing in (*outside.nonlocals.items(), *outside.globals.items()):
        bound = getattr(thing, "__self__", None)
        seen[name] = bound if isinstance(bound, nn.Module) else thing
    return seen


def _shape(argument: object) -> str:
    if not isinstance(argument, Tensor):
        return type(argument).__name__
    return f"{str(argument.dtype).removeprefix('torch.')} {tuple(argument.shape)}"


def names_in(frame: FrameType | None) -> Mapping[int, str]:
    """How the code of a frame calls the modules it has variables for: id -> "vae", "vae.encoder[0]"."""
    names: dict[int, str] = {}
    if frame is None:
        return names
    for variables in (frame.f_locals, frame.f_globals):
        for variable, thing in list(variables.items()):
            if isinstance(thing, nn.Module) and not variable.startswith("_"):
                for path, module in thing.named_modules():
                    names.setdefault(id(module), expression(variable, path))
    return names


def expression(variable: str, path: str) -> str:
    """The Python expression for a submodule: ("vae", "encoder.0.norm") -> "vae.encoder[0].norm"."""
    parts = path.split(".") if path else []
    return variable + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
