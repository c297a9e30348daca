"""Showing a user's modules a few data, and leaving them as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ....estimators.isolation import drawing_from
from ..buffers import kept_buffers


class Showing:
    """What is learned of modules while they are shown data.

    Attributes:
        owners: the modules.
    """

    def __init__(self, owners: list[nn.Module]) -> None:
        self.owners = owners

    def placed(self, x: Tensor) -> Tensor:
        """x on the device of the first module, and in its dtype unless x holds integers."""
        like = next((p for o in self.owners for p in o.parameters() if p.is_floating_point()), x)
        return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)

    def parameters(self) -> dict[int, tuple[str, nn.Parameter]]:
        """Those of all modules, by id, with their names in the first that has them."""
        owners = reversed(self.owners)
        return {id(p): (name, p) for owner in owners for name, p in owner.named_parameters()}

    def reached(self, output: Tensor) -> set[int]:
        """Ids of the parameters that there is a path to."""
        parameters = [p for _, p in self.parameters().values() if p.requires_grad]
        if not output.requires_grad or not parameters:
            return set()
        found = torch.autograd.grad(output.sum(), parameters, allow_unused=True, retain_graph=True)
        return {id(p) for p, gradient in zip(parameters, found, strict=True) if gradient is not None}

    @contextmanager
    def noting(self) -> Iterator[set[int]]:
        """The set then holds the ids of the modules that are called inside."""
        called: set[int] = set()

        def note(module: nn.Module, _: Any) -> None:
            called.add(id(module))

        with ExitStack() as stack:
            for owner in self.owners:
                for module in owner.modules():
                    stack.callback(module.register_forward_pre_hook(note).remove)
            yield called


@contextmanager
def shown_to(owners: Iterable[nn.Module | None]) -> Iterator[Showing]:
    """Inside, all parameters require a gradient; then they, the buffers and the generators are as they were.

    Lazy layers, which draw their weights when they are first shown data, draw them from the caller's
    generators.
    """
    given = [owner for owner in owners if owner is not None]
    with ExitStack() as stack:
        if not any(is_lazy(p) for owner in given for p in owner.parameters()):
            stack.enter_context(drawing_from(0))
        for owner in given:
            stack.enter_context(kept_buffers(owner))
            for parameter in owner.parameters():
                if not is_lazy(parameter) and parameter.is_floating_point() and not parameter.requires_grad:
                    parameter.requires_grad_(True)
                    stack.callback(parameter.requires_grad_, False)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield Showing(given)
