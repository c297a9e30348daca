"""Monte Carlo estimators of the ELBO gradient: the protocol, the catalogue and each estimator.

Importing this package does not import torch; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .registry import catalogue, create, register

if TYPE_CHECKING:
    from .base import Estimate, Estimator, Target

_LAZY = {"Estimate": "base", "Estimator": "base", "Target": "base"}

__all__ = ["Estimate", "Estimator", "Target", "UsageError", "catalogue", "create", "register"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
