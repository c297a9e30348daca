"""Modules whose train mode makes a gradient estimate depend on more than its own draws."""

from __future__ import annotations

from torch import nn

from ..estimators.errors import UsageError
from .problems.protocol import Problem

_COUPLES_OR_DRAWS = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def check_modes(problem: Problem) -> None:
    """Raise UsageError when BatchNorm or dropout is in train mode.

    The one couples the data of a batch and moves its statistics with every call, the other adds noise
    that is not the estimator's; neither would be told apart in the measured variance.
    """
    for side in ("encoder", "decoder"):
        for name, module in getattr(problem, side).named_modules():
            if module.training and isinstance(module, _COUPLES_OR_DRAWS):
                kind = type(module).__name__
                raise UsageError(f"{side}.{name} ({kind}) is in train mode: call {side}.eval() first")
