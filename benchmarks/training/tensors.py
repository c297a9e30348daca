"""All tensors of a run, parameters and buffers of its model and of its estimator, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from torch import Tensor, nn

from ...estimators.base import Estimator
from ..problems.protocol import Problem
from ..vmapping import Place


class RunTensors:
    """Parameters and buffers by name.

    Args:
        problem: trained.
        estimator: trained along; has allocated its state.

    Attributes:
        named: name -> tensor; one that stands in several places has one name.
        places: all of them, with the names.
        model: names of the trainable parameters of encoder and decoder, φ first.
        phi: of the encoder's.
        own: names of the estimator's trainable parameters.
    """

    def __init__(self, problem: Problem, estimator: Estimator) -> None:
        self.named: dict[str, Tensor] = {}
        self.places: list[tuple[Place, str]] = []
        known: dict[int, str] = {}
        for path, held in _dictionaries(problem, estimator):
            for own, tensor in held.items():
                if tensor is not None:
                    name = known.setdefault(id(tensor), f"{path}.{own}")
                    self.named.setdefault(name, tensor)
                    self.places.append(((held, own), name))

        def trained(module: nn.Module) -> list[str]:
            return [known[id(p)] for p in module.parameters() if p.requires_grad]

        self.phi = trained(problem.encoder)
        self.model = self.phi + trained(problem.decoder)
        self.own = trained(estimator)

    @property
    def shapes(self) -> dict[str, tuple[object, ...]]:
        """What has to be the same in runs that are stacked."""
        return {name: (t.shape, t.dtype, t.device, t.requires_grad) for name, t in self.named.items()}

    def now(self) -> dict[str, Tensor]:
        """The tensors that stand there now, by name: a forward pass may have put new ones."""
        return {name: held[own] for (held, own), name in reversed(self.places)}


def plain_numbers(problem: Problem, estimator: Estimator) -> list[object]:
    """Numbers and words that the parts of a run keep in attributes, in a fixed order."""
    sides = (problem, problem.encoder, problem.decoder, estimator)
    parts = {
        id(p): p for side in sides for p in (side, *(side.modules() if isinstance(side, nn.Module) else ()))
    }
    return [
        (name, value)
        for part in parts.values()
        for name, value in getattr(part, "__dict__", {}).items()
        if isinstance(value, bool | int | float | str | None)
    ]


def _dictionaries(problem: Problem, estimator: Estimator) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    sides: dict[str, object] = {"encoder": problem.encoder, "decoder": problem.decoder}
    for root, module in {**sides, "problem": problem, "estimator": estimator}.items():
        if isinstance(module, nn.Module):
            for path, part in module.named_modules():
                yield f"{root}.{path}", part._parameters
                yield f"{root}.{path}", part._buffers
