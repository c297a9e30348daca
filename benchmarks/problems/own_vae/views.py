"""Part of a user's module as a module of its own: the same parameters, under the same names."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, MutableMapping, ValuesView
from types import MappingProxyType
from typing import Any

from torch import nn


class View(nn.Module):
    """What one side reaches of a user's modules: holds their children and their own tensors, copies nothing.

    Its mode is theirs: `eval` of a view is `eval` of the modules that it shows, as far as it shows them. Its
    own attributes have names that a user's children are not likely to have.
    """

    _called = ""  #: how the user's code calls what it shows
    _names: Mapping[str, str] = MappingProxyType({})  #: how it calls the modules within, by their path here

    def __init__(self) -> None:
        self._shown: list[nn.Module] = []
        super().__init__()

    @property
    def training(self) -> bool:
        """Whether what it shows is in train mode."""
        return any(module.training for module in self._shown) if self._shown else self._mode

    @training.setter
    def training(self, mode: bool) -> None:
        self._mode = mode
        for module in self._shown:
            module.training = mode


def show(
    view: View,
    module: nn.Module,
    mine: set[int],
    theirs: set[int],
    called: set[int] | None,
    root: bool = True,
) -> None:
    """Add a module's children and own tensors to a view, under the names they have there.

    Args:
        view: may show others already.
        module: a user's; left as it is.
        mine: ids of the parameters that belong here.
        theirs: ids of those that belong elsewhere; what nobody uses goes with its neighbours.
        called: ids of the modules that are called here, of those without parameters; None for all.
        root: whether it may be registered itself, where it has no children.
    """
    if root and not module._modules and module._parameters and _is_whole(module, mine, theirs, called):
        view._modules["module"] = module  # a layer may keep its tensors in ways of its own (a GRU)
        return
    view._shown.append(module)  # in a list, and so not among its children
    own = [k for k, p in module._parameters.items() if p is not None and id(p) in mine]
    _share(view, "_parameters", module, own)
    _share(view, "_buffers", module, list(module._buffers))
    view._non_persistent_buffers_set |= module._non_persistent_buffers_set
    for name, child in module._modules.items():
        if child is None:
            continue
        if _is_whole(child, mine, theirs, called):
            view._modules[name] = child  # not `add_module`, which refuses names that a view has of its own
        elif any(id(p) in mine for p in child.parameters()):
            part = View()
            show(part, child, mine, theirs, called, root=False)
            view._modules[name] = part


def _share(view: View, kind: str, module: nn.Module, names: list[str]) -> None:
    if names:
        vars(view)[kind] = Through({name: vars(module)[kind] for name in names})


class Through(dict[str, Any]):
    """Some of a module's parameters or buffers, as they are now; what is put here is put there.

    `Module.to`, `torch.func.functional_call` and forward passes put new tensors in the place of old ones,
    which the view and the user's code must both see.

    Args:
        sources: name -> the dictionary of the module that holds it.
    """

    def __init__(self, sources: dict[str, MutableMapping[str, Any]]) -> None:
        super().__init__(dict.fromkeys(sources))
        self.sources = sources

    def __getitem__(self, name: str) -> Any:
        return self.sources[name][name] if name in self.sources else super().__getitem__(name)

    def __setitem__(self, name: str, tensor: Any) -> None:
        super().__setitem__(name, tensor)
        if name in self.sources:
            self.sources[name][name] = tensor

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        if name in self.sources:
            del self.sources[name][name]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - that is this method

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return {name: self[name] for name in self}.items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return dict(self.items()).values()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.sources, [(name, self[name]) for name in self if name not in self.sources])


def _again(sources: dict[str, MutableMapping[str, Any]], own: list[tuple[str, Any]]) -> Through:
    copied = Through(sources)
    for name, tensor in own:
        dict.__setitem__(copied, name, tensor)
    return copied


def _is_whole(module: nn.Module, mine: set[int], theirs: set[int], called: set[int] | None) -> bool:
    """Whether all of a module belongs to one side."""
    parameters = {id(p) for p in module.parameters()}
    if parameters & mine:
        return not parameters & theirs
    return not parameters & theirs and (called is None or any(id(m) in called for m in module.modules()))
