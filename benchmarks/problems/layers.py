"""Building blocks of the problems: MLPs with reproducible weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...estimators.pieces.arguments import positive_integer


def mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Make ``layers`` hidden tanh layers and a linear output."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Linear(inputs, hidden), nn.Tanh()]
        inputs = hidden
    return nn.Sequential(*modules, nn.Linear(inputs, outputs))


class Constants(nn.Module):
    """Parameters that depend on nothing."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self) -> Tensor:
        return self.values


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Draw the weights made inside from ``seed``, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def check_sizes(**sizes: int) -> None:
    """Raise UsageError unless every named size is a positive integer."""
    for name, size in sizes.items():
        positive_integer(name, size)
