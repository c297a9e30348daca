"""The parameters of a Pyro program as a module of their own, which stands in for the user's while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ....estimators.errors import UsageError
from ..copying import deep_copy
from .running import Rows, Run, constrained, run
from .sites import Site

# Of a module that only hands on to its copy: the copy's are called.
_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


class Own(NamedTuple):
    """A parameter or a buffer that a user's module has and uses without being called itself."""

    owner: nn.Module
    attribute: str

    @property
    def held(self) -> dict[str, Any]:
        """What it lies in, under the attribute's name."""
        mine: dict[str, Any] = self.owner._parameters
        return mine if self.attribute in mine else self.owner._buffers


class Program(NamedTuple):
    """What a user wrote, never copied: all copies of a problem run the same code.

    Attributes:
        role: "guide" or "model".
        call: the program.
        modules: that it calls, by the names they have in `Learned`.
        owned: parameters and buffers of other modules, by those names.
        constraints: of its `pyro.param`, by their names for Pyro.
        keys: their names in `Learned`.
    """

    role: str
    call: Callable[..., object]
    modules: Mapping[str, nn.Module]
    owned: Mapping[str, Own]
    constraints: Mapping[str, constraints.Constraint]
    keys: Mapping[str, str]

    def originals(self) -> list[tuple[str, nn.Module]]:
        """The modules and all in them, by the paths of their copies in `Learned`."""
        return [
            (f"{name}.{path}" if path else name, module)
            for name, top in self.modules.items()
            for path, module in top.named_modules()
        ]

    def __deepcopy__(self, memo: object) -> Program:
        return self


class Learned(nn.Module):
    """Copies of a program's parameters: of the modules it calls, of `pyro.param`, unconstrained.

    While the program runs, the user's modules have the tensors, buffers, modes and hooks of these copies. So
    it can be copied, moved and trained, and the user's model and Pyro's global store stay as they are.

    Args:
        program: what is run.
        free: first values of the `pyro.param`, unconstrained, by their names for Pyro.
    """

    def __init__(self, program: Program, free: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        for name, module in deep_copy(dict(program.modules)).items():
            self.add_module(name, module)
        for key, own in program.owned.items():
            given = own.held[own.attribute].detach().clone()
            if own.held is own.owner._buffers:
                self.register_buffer(key, given)
            else:
                self.register_parameter(key, nn.Parameter(given))
        for name, value in free.items():
            self.register_parameter(program.keys[name], nn.Parameter(value.detach().clone()))

    def run(
        self,
        data: Rows,
        values: Mapping[str, Tensor],
        fresh: Callable[[Site], Tensor],
        until: str | None = None,
    ) -> dict[str, Site]:
        """The program's sample statements, by name.

        Args:
            data: rows x (N, ...), and y (N, ...) where there is one.
            values: of latents, (N, *event).
            fresh: the value of those that have none.
            until: the latent at which to stop.
        """
        handler = Run(self.program.role, len(data[0]), values, fresh, self._parameter, until)
        with self.standing_in():
            return run(self.program.call, data, handler)

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters."""
        floating = (p.dtype for p in self.parameters() if p.is_floating_point())
        return next(floating, torch.get_default_dtype())

    def _parameter(self, name: str, first: Any, constraint: constraints.Constraint) -> Tensor:
        key = self.program.keys.get(name)
        if key is not None:
            return constrained(getattr(self, key), self.program.constraints[name])
        if isinstance(first, Tensor):
            return first  # a PyroModule's own, which it does not take from here
        raise UsageError(
            f"pyro.param {name!r} of the {self.program.role} was not there when the program was first run: a "
            f"program whose statements change cannot be measured"
        )

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Inside, the user's modules are these copies, whoever holds them; new tensors are of their type."""
        states: list[tuple[nn.Module, dict[str, Any]]] = []
        tensors: list[tuple[Own, Tensor]] = []
        default = torch.get_default_dtype()
        try:
            torch.set_default_dtype(self.dtype)
            copies = dict(self.named_modules(remove_duplicate=False))
            for path, module in self.program.originals():
                states.append((module, vars(module)))
                _set_state(module, _handing_on(copies[path]))
            for key, own in self.program.owned.items():
                tensors.append((own, own.held[own.attribute]))
                own.held[own.attribute] = getattr(self, key)
            yield
        finally:
            torch.set_default_dtype(default)
            for own, tensor in tensors:
                own.held[own.attribute] = tensor
            for module, state in reversed(states):
                _set_state(module, state)


def _handing_on(copy: nn.Module) -> dict[str, Any]:
    """The state of a module that has the copy's attributes, and calls the copy where it is called."""
    return {**vars(copy), **{hooks: {} for hooks in _HOOKS}, "forward": copy}


def _set_state(module: nn.Module, state: dict[str, Any]) -> None:
    object.__setattr__(module, "__dict__", state)
