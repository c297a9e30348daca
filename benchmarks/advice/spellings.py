"""Spellings of one estimator: the same class with the same parameters, defaults written out or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...estimators.base import Estimator

_ANYWAY = {"label", "training"}  # differ, or may, between spellings


def same_estimator(one: Estimator, other: Estimator) -> bool:
    """Whether two fresh estimators are of one class and hold the same: what one does, the other does.

    Parameters and submodules of equal shapes count as equal, for they are drawn at random; what cannot be
    compared counts as different.
    """
    if type(one) is not type(other):
        return False
    mine, theirs = ({k: v for k, v in vars(e).items() if k not in _ANYWAY} for e in (one, other))
    return mine.keys() == theirs.keys() and all(_same(mine[k], theirs[k]) for k in mine)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Parameter):
        return a.shape == b.shape and a.dtype == b.dtype
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Estimator):
        return same_estimator(a, b)
    if isinstance(a, nn.Module):
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (a, b)]
        return repr(a) == repr(b) and shapes[0] == shapes[1]
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, str | bytes | int | float | complex | bool | set | frozenset) and a == b
