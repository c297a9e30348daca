"""The random numbers of many runs in one pass: each run's from generators of its own, as if it ran alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .step import out_of_domain

#: In the names of the functions that may draw; one too many costs time, one too few `OwnDraws` does not see.
_DRAWING = (
    "rand", "normal", "bernoulli", "dropout", "multinomial", "uniform", "exponential", "gamma", "dirichlet",
    "poisson", "binomial", "cauchy", "geometric", "gumbel", "rrelu", "attention", "lstm", "gru", "rnn",
)  # fmt: skip

#: Of one run, by type of device.
Generators = Mapping[str, torch.Generator]


@cache
def may_draw(function: Callable[..., Any]) -> bool:
    """Whether a function of torch draws, by its name."""
    name = getattr(function, "__name__", "")
    return any(part in name for part in _DRAWING)


class OwnDraws(TorchDispatchMode):
    """Inside, what `torch.vmap` draws for all runs at once is drawn run by run.

    It sits below `torch.func`, where runs are the first dimension, or lead in it. An operation that takes no
    generator draws from the global one.

    Args:
        generators: of each run.

    Attributes:
        refused: numbers of the runs whose probabilities were none; others were drawn in their place.
    """

    def __init__(self, generators: Sequence[Generators]) -> None:
        super().__init__()
        self.generators = generators
        self.refused: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        draw = _with_generator(func)
        if draw is None:
            return func(*args, **(kwargs or {}))
        options = {name: value for name, value in (kwargs or {}).items() if value is not None}
        kind = _device(args, options).type
        led = all(len(a) == len(self.generators) for a in args if isinstance(a, Tensor) and a.dim())
        drawn = [
            self._drawn(draw, own, {**options, "generator": self.generators[run][kind]}, run)
            for run, own in enumerate(self._shares(args, led))
        ]
        if func._schema.is_mutable:
            return args[0]  # written to by its shares
        return torch.stack(drawn) if led else torch.cat(drawn)

    def _drawn(self, draw: Any, args: tuple[Any, ...], options: dict[str, Any], run: int) -> Tensor:
        """What one run draws; where that stops a run that is alone, it may not stop the others."""
        try:
            drawn: Tensor = draw(*args, **options)
        except RuntimeError as error:
            if not out_of_domain(error):
                raise
            self.refused.add(run)
            drawn = draw(*(torch.ones_like(a) if isinstance(a, Tensor) else a for a in args), **options)
        return drawn

    def _shares(self, args: tuple[Any, ...], led: bool) -> Iterator[tuple[Any, ...]]:
        """The arguments of each run.

        Runs are a dimension of their own where arguments are ``led`` by it; else, as torch.multinomial is
        shown them, they lie one after the other in the first.
        """
        runs = len(self.generators)
        each: list[Sequence[Any]] = []
        for argument in args:
            if isinstance(argument, Tensor) and argument.dim():
                each.append(argument.unbind() if led else argument.chunk(runs))
            elif isinstance(argument, list | tuple):
                each.append([argument[1:]] * runs)
            else:
                each.append([argument] * runs)
        return zip(*each, strict=True)


@cache
def _with_generator(operation: Any) -> Callable[..., Any] | None:
    """How to call a random operation of aten with a generator; None where it takes none, or is not random.

    By torch's own functions, which take a tenth of the time that operations of `torch.ops` do.
    """
    packet = operation.overloadpacket
    if torch.Tag.nondeterministic_seeded not in operation.tags:
        return None
    if packet is torch.ops.aten.randperm:  # which `torch.vmap` calls once for each run
        return None
    overloads = (getattr(packet, name) for name in packet.overloads())
    if all(argument.name != "generator" for each in overloads for argument in each._schema.arguments):
        return None
    name = packet.__name__
    found: Callable[..., Any] = getattr(Tensor if name.endswith("_") else torch, name, packet)
    return found


def generators(states: Mapping[str, Tensor], device: torch.device) -> Generators:
    """Generators of their own in these states, by type of device."""
    made = {kind: torch.Generator(device if kind == "cuda" else "cpu") for kind in states}
    return {kind: generator.set_state(states[kind]) for kind, generator in made.items()}


def _device(args: tuple[Any, ...], options: Mapping[str, Any]) -> torch.device:
    tensor = next((a for a in args if isinstance(a, Tensor)), None)
    return torch.device(options.get("device") or "cpu") if tensor is None else tensor.device
