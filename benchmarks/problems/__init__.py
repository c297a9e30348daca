"""What is measured on: the shared VAE, problems with known answers, and a user's own model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import load_problem, problem_catalogue

if TYPE_CHECKING:
    from .protocol import Problem

_LAZY = {"Problem": "protocol"}

__all__ = ["Problem", "load_problem", "problem_catalogue"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
