"""Whether a thing is a problem: what can be said without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from .faults import Faults, all_of, raise_first
from .needed import NEEDED, is_module
from .protocol import Problem

_MISSING = object()
SIDES = ("encoder", "decoder")
_METHODS = ("posterior", "target", "batches")


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
    raise_first(no_problem_faults(problem))
    missing = missing_parts(problem)
    if missing:
        raise UsageError(f"{type(problem).__name__} is not a problem: it has no {', '.join(missing)}")
    raise_first(part_faults(problem))


def no_problem_faults(problem: object) -> Faults:
    """Why a thing is of another kind altogether: a class, or a module that nobody has wrapped."""
    if isinstance(problem, type):
        yield f"{problem.__name__} is a class: give an instance, {problem.__name__}(...)"
    elif wrap := unwrapped(problem):
        yield wrap


def unwrapped(thing: object) -> str:
    """What to say of a module, or a class of them, that is not yet a problem; "" of anything else."""
    if not is_module(thing) or len(missing_parts(thing)) < len(NEEDED) - 2:
        return ""
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    return f"{name} is a torch.nn.Module and not yet a problem: wrap it, {how_to_wrap(thing)}"


def how_to_wrap(module: object) -> str:
    """The call of `from_vae` that makes a problem of a module, by the names of its parts."""
    whole = any(all(hasattr(module, half) for half in pair) for pair in (("encode", "decode"), SIDES))
    call = "from_vae(model, data=data)" if whole else "from_vae(encoder, decoder, data) of its two halves"
    return f"problem = {call} (from elbograd.benchmarks.problems)"


def missing_parts(problem: object) -> list[str]:
    """Names of what a problem must have and this one has not; a property that fails is there."""
    return [name for name in NEEDED if not _is_there(problem, name)]


def _is_there(problem: object, name: str) -> bool:
    try:
        return attribute(problem, name, _MISSING) is not _MISSING
    except UsageError:
        return True


def part_faults(problem: object) -> Faults:
    """What is wrong with the parts that a problem has, a line each."""
    yield from all_of(*(_side_faults(problem, side) for side in SIDES), _method_faults(problem))
    for name in ("label", "latent_dim"):  # which results hold: told now rather than after the measurement
        yield from all_of(_property_faults(problem, name))
    encoder, decoder = (_module(problem, side) for side in SIDES)
    if encoder is not None and decoder is not None:
        yield from _shared_faults(encoder, decoder)


def _side_faults(problem: object, side: str) -> Faults:
    what, module = type(problem).__name__, attribute(problem, side, _MISSING)
    if module is _MISSING:
        return
    if isinstance(module, type):
        yield f"{what}.{side} is a class, {module.__name__}: make one, {module.__name__}(...)"
    elif not isinstance(module, nn.Module):
        yield f"{what}.{side} is a {type(module).__name__}, not a torch.nn.Module"
    elif attribute(problem, side, None) is not module:
        yield f"{what}.{side} is another module each time: build it once, in __init__"
    else:
        yield from _parameter_faults(module, side)


def _method_faults(problem: object) -> Faults:
    for name in _METHODS:
        method = attribute(problem, name, _MISSING)
        if method is not _MISSING and not callable(method):
            yield f"{type(problem).__name__}.{name} is a {type(method).__name__}, not a method"


def _property_faults(problem: object, name: str) -> Faults:
    attribute(problem, name, None)
    yield from ()


def _module(problem: object, side: str) -> nn.Module | None:
    try:
        found = attribute(problem, side, None)
    except UsageError:
        return None
    return found if isinstance(found, nn.Module) else None


def check_trainable(problem: Problem, side: str = "encoder") -> None:
    """See that there is something to differentiate with respect to.

    Raises:
        UsageError: no parameter of that side requires a gradient.
    """
    if not any(p.requires_grad for p in getattr(problem, side).parameters()):
        raise UsageError(f"the problem has no trainable parameters in its {side}")


def _parameter_faults(module: nn.Module, side: str) -> Faults:
    parameters, tensors = [*module.named_parameters()], [*module.named_parameters(), *module.named_buffers()]
    kinds = (
        ("is complex: make its real and imaginary part two parameters (torch.complex)",
         [name for name, parameter in parameters if parameter.is_complex()]),
        ("is on the meta device, which holds no numbers: build the model on another",
         [name for name, tensor in tensors if tensor.is_meta]),
        ("was made under torch.inference_mode, which autograd cannot differentiate: build the model outside",
         [name for name, tensor in tensors if _is_inference(tensor)]),
    )  # fmt: skip
    for what, names in kinds:
        if names:
            yield f"{side}.{names[0]} {what}{and_more(names)}"


def _is_inference(tensor: Tensor) -> bool:
    return not nn.parameter.is_lazy(tensor) and not tensor.is_meta and tensor.is_inference()


def and_more(names: Sequence[str]) -> str:
    """Behind what was said of the first of several: how many there are like it."""
    return "" if len(names) == 1 else f" (and {len(names) - 1} more like it)"


def _shared_faults(encoder: nn.Module, decoder: nn.Module) -> Faults:
    """Parameters that φ and θ have in common: surrogate and value each have half the gradient of such."""
    names = {id(p): name for name, p in decoder.named_parameters() if p.requires_grad}
    shared = [
        f"encoder.{name} is also decoder.{names[id(parameter)]}"
        for name, parameter in encoder.named_parameters()
        if id(parameter) in names
    ]
    if shared:
        yield (
            f"{shared[0]}, so its gradient is neither that of φ nor that of θ: give each side a copy of its "
            f"own (copy.deepcopy){and_more(shared)}"
        )
