"""The noise behind an estimate: what torch was asked to draw, number by number, with its distribution.

An estimate is a function of this noise, and the distribution of the noise is torch's, whatever the estimator
makes of it. So what has a known mean under the noise can be subtracted from an estimate without moving its
mean, and where the noise has few values all of them can be gone through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...estimators.testing.random_operations import Drawn, RandomOperations


@dataclass(frozen=True)
class Noise:
    """Independent numbers of one random operation, sorted by sample and entry of the batch.

    Attributes:
        kind: "normal", "uniform", "exponential" (each a standard one), "bits", "states" or "gamma".
        values: (L, R, B, V): V numbers for each of L samples; float64, of states their numbers.
        parameter: of bits the probability of a 1 and of gammas the shape, (L, R, B, V); of states the
            probabilities, (1, R, B, V, K); else None.
    """

    kind: str
    values: Float[Tensor, "L R B V"]
    parameter: Tensor | None = None

    @property
    def states(self) -> int:
        """How many values a number can take; 0 for infinitely many."""
        if self.kind == "states":
            assert self.parameter is not None
            return self.parameter.shape[-1]
        return 2 if self.kind == "bits" else 0


def noise_of(drawn: Drawn, replicates: int, data: int) -> Noise | None:
    """The noise of an operation, or None where its distribution or its shape is not understood.

    Args:
        drawn: while estimates of batch (R, B) were made.
        replicates: R.
        data: B.
    """
    if drawn.name == "multinomial":
        return _states(drawn, replicates, data)
    found = _READERS.get(drawn.name)
    if found is None or not drawn.output.is_floating_point():
        return None
    kind, values, parameter = found(drawn)
    parts = [
        _sorted(part.detach().double(), replicates, data) for part in (values, parameter) if part is not None
    ]
    if any(part is None or not part.isfinite().all() for part in parts):
        return None
    return Noise(kind, *parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Scaled:
    """location + scale × the standard number is drawn.

    Attributes:
        kind: of the standard number.
        first: which of the operation's arguments are the parameters: that and the next.
        of: location and scale from them; left out at the end, they have torch's defaults.
    """

    kind: str
    first: int
    of: Callable[..., tuple[Any, Any]]

    def __call__(self, drawn: Drawn) -> tuple[str, Tensor, Tensor | None]:
        location, scale = self.parameters(drawn)
        return self.kind, (drawn.output.double() - location) / scale, None

    def parameters(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Location and scale of what is drawn."""
        location, scale = self.of(*drawn.arguments[self.first : self.first + 2])
        device = drawn.output.device
        as_drawn = partial(torch.as_tensor, dtype=torch.float64, device=device)
        return as_drawn(location).detach(), as_drawn(scale).detach()


def _bits(drawn: Drawn) -> tuple[str, Tensor, Tensor]:
    given = drawn.arguments[1] if len(drawn.arguments) > 1 else drawn.arguments[0]
    if drawn.name == "bernoulli_" and len(drawn.arguments) < 2:
        given = 0.5
    p = torch.as_tensor(given, dtype=torch.float64, device=drawn.output.device)
    return "bits", drawn.output, p.expand(drawn.output.shape)


_READERS: dict[str, Callable[[Drawn], tuple[str, Tensor, Tensor | None]]] = {
    "randn": lambda drawn: ("normal", drawn.output, None),
    "randn_like": lambda drawn: ("normal", drawn.output, None),
    "rand": lambda drawn: ("uniform", drawn.output, None),
    "rand_like": lambda drawn: ("uniform", drawn.output, None),
    "normal": _Scaled("normal", 0, lambda mean=0.0, std=1.0: (mean, std)),
    "normal_": _Scaled("normal", 1, lambda mean=0.0, std=1.0: (mean, std)),
    "uniform_": _Scaled("uniform", 1, lambda low=0.0, high=1.0: (low, high - low)),
    "exponential_": _Scaled("exponential", 1, lambda rate=1.0, _=None: (0.0, 1 / rate)),
    "bernoulli": _bits,
    "bernoulli_": _bits,
    "_standard_gamma": lambda drawn: ("gamma", drawn.output, drawn.arguments[0]),
}


def _sorted(values: Tensor, replicates: int, data: int) -> Tensor | None:
    """(*lead, R, B, *rest) as (L, R, B, V)."""
    shape = tuple(values.shape)
    for place in range(len(shape) - 1):
        if shape[place : place + 2] == (replicates, data):
            lead = math.prod(shape[:place])
            return values.reshape(lead, replicates, data, -1)
    return None


def _states(drawn: Drawn, replicates: int, data: int) -> Noise | None:
    """Of multinomial: rows (R·B·V, K) of weights, of each of which L states were drawn."""
    weights, count, *more = drawn.arguments
    replaced = bool(more[0]) if more else bool(drawn.options.get("replacement", False))
    rows, per_datum = drawn.output.numel() // max(count, 1), replicates * data
    if weights.dim() != 2 or rows % per_datum or not (replaced or count == 1):
        return None
    values = drawn.output.reshape(replicates, data, rows // per_datum, count).movedim(-1, 0)
    weights = weights.detach().double()
    probs = weights / weights.sum(-1, keepdim=True)
    return Noise("states", values.double(), probs.reshape(1, replicates, data, -1, weights.shape[-1]))


class _NoMatch(Exception):
    """The noise of an estimate is not what a draw from q needs."""


def replayed(draw: Callable[[], Tensor], noise: Sequence[Noise], replicates: int, data: int) -> Tensor | None:
    """What ``draw`` gives with the numbers of an estimate's noise in the place of its own.

    None where it draws other numbers than the estimate did: of another distribution, or in another amount.

    Args:
        draw: draws from q, of batch (R, B).
        noise: the last that fit are used, as they follow each other, or else each once, the last first.
        replicates: R.
        data: B.
    """
    for start in reversed(range(len(noise))):
        found = _replayed(draw, list(noise[start:]), replicates, data, in_order=True)
        if found is not None:
            return found
    return _replayed(draw, list(noise), replicates, data, in_order=False)


def _replayed(
    draw: Callable[[], Tensor], left: list[Noise], replicates: int, data: int, in_order: bool
) -> Tensor | None:
    def replace(_: int, drawn: Drawn) -> Tensor:
        wanted = noise_of(drawn, replicates, data)
        for place in range(len(left))[:1] if in_order else reversed(range(len(left))):
            if wanted is not None and _alike(wanted, left[place]):
                return _as_drawn(left.pop(place), drawn)
        raise _NoMatch

    try:
        with RandomOperations(replace):
            return draw()
    except _NoMatch:
        return None


def _alike(wanted: Noise, found: Noise) -> bool:
    if wanted.kind != found.kind or wanted.values.shape != found.values.shape:
        return False
    if wanted.parameter is None or found.parameter is None:
        return True
    # Of logits in float32 the probabilities are known to a few units of rounding.
    return torch.allclose(wanted.parameter, found.parameter, rtol=1e-5, atol=1e-7)


def _as_drawn(noise: Noise, drawn: Drawn) -> Tensor:
    """Noise in the shape and with the parameters of an operation."""
    shape = drawn.output.shape
    if noise.kind == "states":
        return noise.values.movedim(0, -1).reshape(shape).to(drawn.output.dtype)
    values = noise.values.reshape(shape)
    reader = _READERS[drawn.name]
    if isinstance(reader, _Scaled):
        location, scale = reader.parameters(drawn)
        values = location + scale * values
    return values.to(drawn.output.dtype)
