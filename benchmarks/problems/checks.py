"""Whether a thing is a problem: what can be said without running it."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from .needed import NEEDED
from .protocol import Problem

_MISSING = object()


def attribute(problem: object, name: str, default: object) -> Any:
    """An attribute of a user's problem, or the default where there is none.

    Raises:
        UsageError: it is a property that fails.
    """
    try:
        return getattr(problem, name, default)
    except Exception as error:  # a user's property may raise anything
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"{type(problem).__name__}.{name} fails ({what})") from error


def check_problem(problem: object) -> None:
    """Hold a problem to the protocol's names and types.

    Raises:
        UsageError: in one line, what is missing or of another type, and what to do.
    """
    if isinstance(problem, type):
        raise UsageError(f"{problem.__name__} is a class: give an instance, {problem.__name__}(...)")
    what = type(problem).__name__
    missing = [name for name in NEEDED if attribute(problem, name, _MISSING) is _MISSING]
    if missing:
        raise UsageError(f"{what} is not a problem: it has no {', '.join(missing)}")
    for name in ("label", "latent_dim"):  # which results hold: told now rather than after the measurement
        attribute(problem, name, None)
    for side in ("encoder", "decoder"):
        module = attribute(problem, side, None)
        if not isinstance(module, nn.Module):
            raise UsageError(f"{what}.{side} is a {type(module).__name__}, not a torch.nn.Module")
        if attribute(problem, side, None) is not module:
            raise UsageError(f"{what}.{side} is another module each time: build it once, in __init__")
        _check_parameters(module, side)
    _check_apart(problem.encoder, problem.decoder)  # type: ignore[attr-defined]


def check_trainable(problem: Problem, side: str = "encoder") -> None:
    """See that there is something to differentiate with respect to.

    Raises:
        UsageError: no parameter of that side requires a gradient.
    """
    if not any(p.requires_grad for p in getattr(problem, side).parameters()):
        raise UsageError(f"the problem has no trainable parameters in its {side}")


def _check_parameters(module: nn.Module, side: str) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise UsageError(
                f"{side}.{name} is complex: make its real and imaginary part two parameters (torch.complex)"
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise UsageError(
                f"{side}.{name} is on the meta device, which holds no numbers: build the model on another"
            )
        if not nn.parameter.is_lazy(tensor) and tensor.is_inference():
            raise UsageError(
                f"{side}.{name} was made under torch.inference_mode, which autograd cannot differentiate: "
                f"build the model outside"
            )


def _check_apart(encoder: nn.Module, decoder: nn.Module) -> None:
    """See that φ and θ have no parameter in common: surrogate and value each have half its gradient."""
    names = {id(p): name for name, p in decoder.named_parameters() if p.requires_grad}
    for name, parameter in encoder.named_parameters():
        if id(parameter) in names:
            raise UsageError(
                f"encoder.{name} is also decoder.{names[id(parameter)]}, so its gradient is neither that of "
                f"φ nor that of θ: give each side a copy of its own (copy.deepcopy)"
            )
