"""Losses of PyTorch given as a likelihood: of these the sign is that of −log p."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from ....estimators.errors import UsageError

_MODULE, _FUNCTION = nn.modules.loss._Loss, "torch.nn.functional"
#: What a loss is the likelihood of, by its name without underscores.
_STANDS_FOR = {
    "bceloss": "'bernoulli-probs'",
    "binarycrossentropy": "'bernoulli-probs'",
    "bcewithlogitsloss": "'bernoulli'",
    "binarycrossentropywithlogits": "'bernoulli'",
    "mseloss": "'gaussian', scale=0.5 ** 0.5",
    "crossentropyloss": "'categorical'",
    "crossentropy": "'categorical'",
}


def is_loss(thing: object) -> bool:
    """Whether it is a loss module, which has nothing that is learned."""
    return isinstance(thing, _MODULE)


def check_is_no_loss(likelihood: object) -> None:
    """Raise UsageError where a loss stands for log p(x|z), which it would be with the wrong sign."""
    inner: Any = likelihood
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not is_loss(inner) and getattr(inner, "__module__", "") != _FUNCTION:
        return
    name = getattr(inner, "__name__", type(inner).__name__)
    named = _STANDS_FOR.get(name.replace("_", "").lower(), "")
    raise UsageError(
        f"likelihood is {name}, a loss, which is −log p: "
        f"{f'likelihood={named}, or ' if named else ''}lambda out, x: -loss(out, x) with reduction='none'"
    )
