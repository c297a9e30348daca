"""Which modules and parameters a program uses, found by running it once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as of_modules

from ..buffers import kept_buffers


@contextmanager
def called_modules(program: object) -> Iterator[list[nn.Module]]:
    """Inside, the list fills with the modules that a program calls itself; their buffers are put back.

    Where the program is a module, it is none of them.
    """
    depth: list[int] = [0]
    found: list[nn.Module] = []

    def enter(module: nn.Module, inputs: object) -> None:
        if module is program:
            return
        if depth[0] == 0 and all(module is not other for other in found):
            kept.enter_context(kept_buffers(module))
            found.append(module)
        depth[0] += 1

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        depth[0] -= module is not program

    with ExitStack() as kept:
        before = of_modules.register_module_forward_pre_hook(enter)
        after = of_modules.register_module_forward_hook(leave, always_call=True)
        try:
            yield found
        finally:
            before.remove()
            after.remove()


def leaves(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors that require a gradient and that these depend on."""
    found: dict[int, Tensor] = {}
    seen: set[Any] = set()
    nodes: list[Any] = []
    for tensor in tensors:
        if tensor.grad_fn is not None:
            nodes.append(tensor.grad_fn)
        elif tensor.requires_grad:
            found[id(tensor)] = tensor
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    return list(found.values())


def holder(program: Callable[..., object]) -> object:
    """What a program is a method of, or itself."""
    while isinstance(program, functools.partial):
        program = program.args[1] if len(program.args) > 1 and callable(program.args[1]) else program.func
    return getattr(program, "__self__", program)


def owner_of(parameter: Tensor, among: Iterable[nn.Module]) -> tuple[nn.Module, str] | None:
    """The module that has this tensor, and the attribute's name; or None."""
    for top in among:
        for module in top.modules():
            for name, value in module._parameters.items():
                if value is parameter:
                    return module, name
    return None
