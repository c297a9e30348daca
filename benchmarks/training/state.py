"""The numbers of a model: parameters and buffers of encoder and decoder."""

from __future__ import annotations

from torch import Tensor, nn

from ..problems.protocol import Problem

#: "encoder" and "decoder" -> their state dicts.
State = dict[str, dict[str, Tensor]]


def state_of(problem: Problem) -> State:
    """Copies of them."""
    return {
        name: {key: value.detach().clone() for key, value in side.state_dict().items()}
        for name, side in sides(problem).items()
    }


def sides(problem: Problem) -> dict[str, nn.Module]:
    """By their names."""
    return {"encoder": problem.encoder, "decoder": problem.decoder}
