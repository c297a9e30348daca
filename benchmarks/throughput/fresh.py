"""What is timed sees other variational parameters at every call, as in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..problems.protocol import Problem

_AMPLITUDE = 1e-3  # thousands of float32 numbers, even beside 1
_STEP = (math.sqrt(5) - 1) / 2  # never comes back to where it was


class FreshEta:
    """Moves one parameter of the encoder a little between calls, so that eta is never the same twice.

    An estimator that keeps what it computed, by the values of eta or by its tensors, would otherwise look
    cheap: in training nothing of what it kept is ever asked for again. It is moved less than
    by a step of training, which changes nothing that costs time.

    Args:
        problem: its encoder is moved in place, until `restore`.
        x: (B, ...), on which the movement must be seen.
    """

    def __init__(self, problem: Problem, x: Tensor) -> None:
        self._moved = _that_moves(problem, x)
        self._before = [p.detach().clone() for p in self._moved]
        self._amplitudes = [_amplitude(p) for p in self._moved]
        self._calls = 0

    @torch.no_grad()
    def next(self) -> None:
        """Move on. One small addition where one parameter is enough."""
        self._calls += 1
        where = math.fmod(self._calls * _STEP, 1.0) - 0.5
        for parameter, before, amplitude in zip(self._moved, self._before, self._amplitudes, strict=True):
            torch.add(before, where * amplitude, out=parameter)

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back to the last bit."""
        for parameter, before in zip(self._moved, self._before, strict=True):
            parameter.copy_(before)


def _that_moves(problem: Problem, x: Tensor) -> list[nn.Parameter]:
    """The last parameter of the encoder that eta depends on; all of them where none alone is seen to."""
    parameters = [p for p in problem.encoder.parameters() if p.requires_grad]
    eta = problem.encoder(x).detach()
    for parameter in reversed(parameters):
        before, amplitude = parameter.detach().clone(), _amplitude(parameter)
        with torch.no_grad():
            parameter.add_(_STEP * amplitude)
        moved = problem.encoder(x).detach()
        with torch.no_grad():
            parameter.copy_(before)
        if not torch.equal(moved, eta):
            return [parameter]
    return parameters


def _amplitude(parameter: Tensor) -> float:
    return max(_AMPLITUDE, 16 * torch.finfo(parameter.dtype).eps)
