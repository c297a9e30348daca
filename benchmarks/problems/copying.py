"""Deep copies of what users bring, also of modules that keep on themselves what they computed last."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...estimators.errors import UsageError
from ...estimators.text import one_line

_T = TypeVar("_T")


def deep_copy(given: _T) -> _T:
    """A copy that shares nothing with what is given; tensors inside that hang on a graph become detached.

    Such a tensor is what the last forward pass left behind (a KL for the log, the weight that
    `torch.nn.utils.weight_norm` puts together); the next one puts a new one in its place.

    Raises:
        UsageError: it cannot be copied (it holds an open file, say).
    """
    try:
        with _Detaching():
            return copy.deepcopy(given)
    except Exception as error:  # a user's object may hold anything
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"{type(given).__name__} cannot be deep-copied: {what}") from error


class _Detaching(TorchFunctionMode):
    """Inside, `copy.deepcopy` takes tensors that are no leaves, which it refuses otherwise."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))
