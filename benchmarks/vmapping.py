"""What lets passes of users' models and estimators run side by side, in the lanes of `torch.vmap`.

A lane is one pass. Modules hold the lane's own tensors in place of theirs while it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode

_NEW_MEMORY = (torch.empty, torch.empty_like, Tensor.new_empty, Tensor.new)

#: Where a tensor stands: the dictionary of the module that holds it (``_parameters``, ``_buffers``), and its
#: name there.
Place = tuple[MutableMapping[str, Any], str]


@contextmanager
def placed(places: Sequence[tuple[Place, str]], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, modules hold these tensors, by name, in place of their own."""
    before = [held[own] for (held, own), _ in places]
    try:
        for (held, own), name in places:
            held[own] = values[name]
        yield
    finally:
        for ((held, own), _), tensor in zip(places, before, strict=True):
            held[own] = tensor


class LaneOf(TorchFunctionMode):
    """Lets a lane do what is refused there although each lane could do it.

    ``z.detach().requires_grad_()`` becomes z.detach() + anchor: a tensor of the same numbers from which the
    way back leads to the anchor alone. New memory becomes each lane's own, so that ``empty(n).uniform_()``
    draws in each. `one_hot` of a known number of classes does not ask which there are.

    Args:
        anchor: zero, (), of this lane.
    """

    def __init__(self, anchor: Tensor) -> None:
        super().__init__()
        self._anchor, self._own = anchor, anchor.detach()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.requires_grad_ and (len(args) < 2 or args[1]) and not kwargs:
            return self._leaf(args[0])
        if func is one_hot and len(args) == 2 and args[1] > 0:
            classes = torch.arange(args[1], device=args[0].device)
            return (args[0].unsqueeze(-1) == classes).long()
        result = func(*args, **(kwargs or {}))
        if func in _NEW_MEMORY and result.is_floating_point():
            return result + self._own.to(result.dtype)
        return result

    def _leaf(self, tensor: Tensor) -> Tensor:
        try:
            return tensor.requires_grad_()  # which `torch.func` does itself
        except RuntimeError:
            with torch.enable_grad():
                return tensor + self._anchor.to(tensor.dtype)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Inside, what is fused or compiled runs as plain operations, which have batching rules and hooks."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if "torch._dynamo.eval_frame" in sys.modules:  # importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
