"""A batch of shape (B,), as in training, against one replicate (1, B) of it, under the same noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ...estimators.testing.random_operations import Drawn, RandomOperations
from .oracle import Draws
from .subject import Subject

_TOLERANCE = {"float64": 1e-8, "float32": 2e-3}  # of sums taken in another order, where terms cancel


class _OtherNoise(Exception):
    """The two do not draw alike."""


def plain_batch(subject: Subject) -> str | None:
    """What differs between them, entry by entry; "" where nothing does, None where they draw otherwise."""
    subject.seed("pilot")
    with RandomOperations() as seen:
        replicated = subject.estimates(1)

    def replace(index: int, drawn: Drawn) -> Tensor:
        if index >= len(seen.drawn) or seen.drawn[index].output.numel() != drawn.output.numel():
            raise _OtherNoise
        return seen.drawn[index].output.reshape(drawn.output.shape)

    try:
        with RandomOperations(replace) as again:
            plain = subject.estimates(None)
    except _OtherNoise:
        return None
    if len(again.drawn) != len(seen.drawn):
        return None
    one, other = (subject.oracle.gradients(*pair) for pair in (replicated, plain))
    return _difference(subject, Draws(*(part[0] for part in one)), other)


def _difference(subject: Subject, one: Draws, other: Draws) -> str:
    exact = {"gradient": subject.oracle.eta_grad, "value": subject.oracle.value}
    for name, a in one._asdict().items():
        b, truth = getattr(other, name), exact[name]
        if b.shape != a.shape:
            return f"with batch (B,) the {name} has shape {tuple(b.shape)}, not {tuple(a.shape)}"
        unit = max(float((a + truth).abs().max()), float(subject.oracle.value.abs().max()), 1e-300)
        apart = (a - b).abs()
        if not float(apart.max()) <= _TOLERANCE[subject.corner.dtype] * unit:
            place = int(apart.nan_to_num(torch.inf).argmax())
            pair = (float((part + truth).flatten()[place]) for part in (a, b))
            numbers = " and with (B,) ".join(f"{number:.4g}" for number in pair)
            return f"under the same noise the {name} is with batch (1, B) {numbers} (entry {place})"
    return ""
