"""A problem that lacks parts, with stand-ins for them, so that the others can be looked at."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..problems.checks import attribute
from ..problems.needed import NEEDED

_WHAT = {
    "encoder": "a torch.nn.Module, x (B, ...) -> eta (B, P)",
    "decoder": "a torch.nn.Module that holds θ (nn.Module() where there is none)",
    "posterior": "a method, eta (*batch, P) -> a distribution of batch shape (*batch)",
    "target": "a method, x (B, ...) -> elbograd.estimators.Target(log_likelihood, prior)",
    "batches": "a method, (split, batch_size, generator) -> x (B, ...) at a time, of 'train' and of 'test'",
}


def missing(problem: object, name: str) -> str:
    """The line that is said of a part that a problem has not."""
    return f"{type(problem).__name__} has no {name}: it is {_WHAT[name]}"


def unusable(problem: object) -> set[str]:
    """Parts that are missing, or of a type with which nothing can be done."""
    return {name for name in NEEDED if not _is_usable(problem, name)}


def _is_usable(problem: object, name: str) -> bool:
    try:
        part = attribute(problem, name, None)
        again = attribute(problem, name, None)
    except Exception:  # told elsewhere
        return False
    return isinstance(part, nn.Module) and part is again if name in ("encoder", "decoder") else callable(part)


class Partial:
    """A problem in which unusable modules are empty ones; everything else is the problem's own."""

    def __init__(self, problem: object, without: set[str]) -> None:
        self._problem = problem
        for side in ("encoder", "decoder"):
            setattr(self, side, nn.Module() if side in without else getattr(problem, side))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def batches(self, *arguments: Any, **more: Any) -> Any:
        """The problem's."""
        return self._problem.batches(*arguments, **more)  # type: ignore[attr-defined]
