"""Every random number that torch draws while something runs: seen, and replaced where one wishes.

It sits below torch's distributions and `torch.func`, so it does not matter how an estimator draws: what it
draws is known number by number, with the parameters that it asked for. NumPy's numbers are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Drawn(NamedTuple):
    """One random operation.

    Attributes:
        name: of the operation, without its overload: "randn", "bernoulli", "exponential_", ...
        arguments: positional ones, the parameters of what is drawn among them.
        options: named ones.
        output: what was drawn, detached; of the shape that the operation has.
    """

    name: str
    arguments: Sequence[Any]
    options: Mapping[str, Any]
    output: Tensor


#: From the number of an operation and what it drew to what it shall have drawn, or None to leave it.
Replace = Callable[[int, Drawn], Tensor | None]

_RANDOM: dict[Any, bool] = {}  # operation -> whether it draws; asked thousands of times an estimate


class RandomOperations(TorchDispatchMode):
    """While it is active, random operations are recorded, and their numbers replaced as ``replace`` says.

    The generator moves as it would anyway, whatever is put in the place of its numbers.

    Args:
        replace: see `Replace`; None to look on.

    Attributes:
        drawn: the operations so far, with what they gave in the end.
        unseen: how many random operations gave more than one tensor (dropout), and are neither.
    """

    def __init__(self, replace: Replace | None = None) -> None:
        super().__init__()
        self.drawn: list[Drawn] = []
        self.unseen = 0
        self._replace = replace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        random = _RANDOM.get(func)
        if random is None:
            random = _RANDOM[func] = torch.Tag.nondeterministic_seeded in func.tags
        if not random:
            return func(*args, **kwargs) if kwargs else func(*args)
        options = kwargs or {}
        in_place = func._schema.is_mutable and args and isinstance(args[0], Tensor)
        # What is overwritten may be a parameter of it.
        given = tuple(a.clone() if in_place and i == 0 else a for i, a in enumerate(args))
        output = func(*args, **options)
        if not isinstance(output, Tensor):
            self.unseen += 1
            return output
        drawn = Drawn(func._schema.name.partition("::")[2], given, options, output.detach())
        instead = None if self._replace is None else self._replace(len(self.drawn), drawn)
        if instead is not None:
            output.copy_(instead)
        self.drawn.append(drawn._replace(output=output.detach().clone()))
        return output
