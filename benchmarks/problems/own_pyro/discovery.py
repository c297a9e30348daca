"""The first run of a program: its statements, and the parameters that it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from ....estimators.errors import UsageError
from .learned import Learned, Own, Program
from .running import Rows, Run, constrained, run
from .sites import Site, told_by
from .watching import called_modules, holder, leaves, owner_of


class Found(NamedTuple):
    """What a first run shows.

    Attributes:
        role: "guide" or "model".
        call: the program.
        sites: by name.
        modules: that it calls itself.
        registered: name for Pyro -> a module's parameter.
        free: name -> unconstrained first value of a `pyro.param`, a leaf, and its constraint.
        leaves: what requires a gradient, of all that its statements depend on.
    """

    role: str
    call: Callable[..., object]
    sites: dict[str, Site]
    modules: list[nn.Module]
    registered: dict[str, Tensor]
    free: dict[str, tuple[Tensor, constraints.Constraint]]
    leaves: list[Tensor]


def discover(role: str, program: Callable[..., object], data: Rows, values: Mapping[str, Tensor]) -> Found:
    """Run a program once, as it is.

    Args:
        role: "guide" or "model".
        program: given the data.
        data: rows x (N, ...), and y (N, ...) where there is one.
        values: of latents (N, *event); what has none is drawn.
    """
    stored = pyro.get_param_store().get_state()
    free: dict[str, tuple[Tensor, constraints.Constraint]] = {}

    def parameter(name: str, first: Any, constraint: constraints.Constraint) -> Tensor:
        if name not in free:
            if name in stored["params"]:
                constraint = stored["constraints"][name]
                value = stored["params"][name].detach().clone()
            elif first is None:
                raise UsageError(f"pyro.param {name!r} of the {role} has no first value")
            else:
                first = first() if callable(first) else first
                value = transform_to(constraint).inv(first.detach()).clone()
            free[name] = value.requires_grad_(), constraint
        return constrained(*free[name])

    handler = Run(role, len(data[0]), values, _draw, parameter)
    with called_modules(program) as modules, torch.enable_grad():
        sites = run(program, data, handler)
        reached = leaves(t for site in sites.values() for t in told_by(site))
    _check_store(stored["params"], handler.registered)
    return Found(role, program, sites, modules, handler.registered, free, reached)


_Side = TypeVar("_Side", bound=Learned)


def learned(kind: type[_Side], found: Found, other: Found) -> _Side:
    """The parameters of a program as a module.

    Args:
        kind: of module.
        found: the program's first run.
        other: the other program's: either may have told Pyro of a module.

    Raises:
        UsageError: it learns what Pyro does not know, or what the other learns too.
    """
    names = {id(tensor): name for name, tensor in (other.registered | found.registered).items()}
    held = {id(p) for module in found.modules for p in module.parameters()}
    free = {id(leaf): name for name, (leaf, _) in found.free.items()}
    others = {id(leaf) for leaf in other.leaves}
    top = [m for m in (holder(found.call), *found.modules, *other.modules) if isinstance(m, nn.Module)]
    taken: dict[str, object] = {}
    for module in found.modules:
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise UsageError(
                f"the {found.role} calls a {type(module).__name__} of torch.jit, which cannot be copied with "
                f"its parameters: give the module that it was made of"
            )
    modules = {_key(_name_of(m, names), taken): m for m in found.modules}
    owned: dict[str, Own] = {}
    used: list[str] = []
    for leaf in found.leaves:
        if id(leaf) in free:
            used.append(free[id(leaf)])
            continue
        where = owner_of(leaf, top)
        name = names.get(id(leaf)) or (where[1] if where else "")
        if where is None:
            raise UsageError(
                f"the {found.role} learns a tensor of shape {tuple(leaf.shape)} that is in no module that it "
                f"calls and is no pyro.param: make it one"
            )
        if id(leaf) in others:
            raise UsageError(
                f"{_plain(name)} is used by the guide and by the model, so its gradient is neither that of "
                f"φ nor that of θ: give each a copy of its own (copy.deepcopy)"
            )
        if id(leaf) not in names and not name.endswith("_unconstrained"):
            raise UsageError(
                f"the {found.role} uses {name} of a {type(where[0]).__name__}, which Pyro is not told of "
                f"and so does not train: pyro.module('net', net) in the {found.role}"
            )
        if id(leaf) not in held:
            owned[_key(_plain(name).rpartition(".")[2], taken)] = Own(*where)
    shared = {other_name for other_name, (leaf, _) in other.free.items() if id(leaf) in others} & set(used)
    if shared:
        raise UsageError(
            f"pyro.param {sorted(shared)[0]!r} is used by the guide and by the model, so its gradient is "
            f"neither that of φ nor that of θ: give each one of its own"
        )
    whole = holder(found.call)
    if isinstance(whole, nn.Module):
        buffers = {name: b for name, b in whole._buffers.items() if b is not None}
        owned |= {_key(name, taken): Own(whole, name) for name in buffers}
    keys = {name: _key(name, taken) for name in found.free}
    limits = {name: constraint for name, (_, constraint) in found.free.items()}
    program = Program(found.role, found.call, modules, owned, limits, keys)
    return kind(program, {name: leaf for name, (leaf, _) in found.free.items()})


def _check_store(stored: Mapping[str, Tensor], registered: Mapping[str, Tensor]) -> None:
    """Raise UsageError where Pyro would train other tensors than the modules compute with."""
    for name, tensor in registered.items():
        other = stored.get(name)
        if not isinstance(tensor, nn.Parameter) or other is None or other is tensor:
            continue
        if not torch.equal(other.detach(), tensor.detach()):
            raise UsageError(
                f"Pyro's store has other values of {_plain(name)} than its module: pyro.clear_param_store() "
                f"leaves the module's, pyro.module(..., update_module_params=True) takes the store's"
            )


def _draw(site: Site) -> Tensor:
    with torch.no_grad():
        return site.fn.sample()


def _name_of(module: nn.Module, names: Mapping[int, str]) -> str:
    """How the user calls a module, as far as Pyro was told: of "encoder$$$fc.weight" it is "encoder"."""
    for path, parameter in module.named_parameters():
        full = _plain(names.get(id(parameter), ""))
        if full.endswith(f".{path}"):
            return full.removesuffix(f".{path}").rpartition(".")[2]
    return type(module).__name__.lower()


def _plain(name: str) -> str:
    return name.replace("$$$", ".")


def _key(name: str, taken: dict[str, object]) -> str:
    """A name for an attribute of a module, none that is taken."""
    base = name.replace(".", "_") or "net"
    base = f"{base}_" if hasattr(nn.Module, base) or base in ("program", "dtype", "run") else base
    key, number = base, 2
    while key in taken:
        key, number = f"{base}{number}", number + 1
    taken[key] = name
    return key
