"""Monte Carlo estimators of the ELBO gradient: the protocol, the catalogue and each estimator.

Importing this package does not import torch; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import EstimatorError, UsageError
from .plugins.registry import catalogue, create, register

if TYPE_CHECKING:
    from .base import Estimate, Estimator, Target
    from .pieces.objective import analytic_kl

_LAZY = {"Estimate": "base", "Estimator": "base", "Target": "base", "analytic_kl": "pieces.objective"}

__all__ = [
    "Estimate",
    "Estimator",
    "EstimatorError",
    "Target",
    "UsageError",
    "analytic_kl",
    "catalogue",
    "create",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
