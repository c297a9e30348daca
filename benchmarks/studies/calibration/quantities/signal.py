"""Norm, signal-to-noise ratio and cosine: no signal, near detection, clear; light tails and heavy ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..drawn import measured
from .base import Found, Printed, Quantities

_MANY = 200_000  # draws behind a true cosine
_NEAR = 5.0  # SNR √R below which 0 may be in an interval, which is one-sided then

Draw = Callable[[np.random.Generator, int], np.ndarray]


def cases() -> Iterator[Quantities]:
    """Gaussian ĝ in 1 and 128 coordinates, and score functions."""
    for dimension in (1, 128):
        for n in (20, 100):
            for strength in (0.0, 1.0, 2.0, 3.0, 10.0):
                yield _gaussian(dimension, n, strength)
    for strength in (2.0, 50.0):
        yield _gaussian(1, 1000, strength)
    yield _aligned(400, 2.0)
    for n in (100, 1000):
        for strength in (0.0, 2.0, 10.0):
            yield _score(n, strength)
    for n in (100, 2000):
        yield _exponential(n)


def quick() -> Quantities:
    """Near detection."""
    return _gaussian(1, 1000, 2.0)


def _of(case: str, n: int, norm: float, variance: float, draw: Draw, dimension: int) -> Quantities:
    truths = {"gradient_norm": norm, "snr": norm / math.sqrt(variance)}
    strength = truths["snr"] * math.sqrt(n)
    if strength >= 2:
        many = draw(np.random.default_rng(0), max(_MANY // dimension, 4000))
        along = many[:, 0] / np.linalg.norm(many, axis=1)
        truths["cosine"] = float(along.mean())

    def repetition(generator: np.random.Generator) -> Printed:
        total, signal = measured(torch.from_numpy(draw(generator, n)))
        marked = total.needed is not None
        return {
            name: Found(of.value, of.low, of.high, marked) for name, of in signal.named() if name in truths
        }

    cautious = {"cosine"} if dimension == 1 else set()
    cautious |= {"gradient_norm", "snr"} if strength < _NEAR else set()
    return Quantities(case, n, truths, repetition, frozenset(cautious))


def _gaussian(dimension: int, n: int, strength: float) -> Quantities:
    norm = strength * math.sqrt(dimension / n)

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        found = generator.standard_normal((n, dimension))
        found[:, 0] += norm
        return found

    what = f"Gaussian, {dimension} coordinate{'s' if dimension > 1 else ''}, SNR √R = {strength:g}"
    return _of(what, n, norm, dimension, draw, dimension)


def _aligned(n: int, strength: float) -> Quantities:
    """The gradient in the direction of nearly all the noise."""
    scale = np.array([10.0, *[0.05] * 20])
    norm = strength * math.sqrt(scale.sum() / n)

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        found = generator.standard_normal((n, 21)) * np.sqrt(scale)
        found[:, 0] += norm
        return found

    return _of(f"Gaussian, along the noise, SNR √R = {strength:g}", n, norm, scale.sum(), draw, 21)


def _score(n: int, strength: float) -> Quantities:
    """ĝ = (aᵀε + 3) ε in 4 coordinates, with mean a and variance 5 ‖a‖² + 36."""
    norm = strength * math.sqrt(36 / n)

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        eps = generator.standard_normal((n, 4))
        return np.asarray((norm * eps[:, :1] + 3) * eps)

    return _of(f"score function, {strength:g} = ‖g‖ √R/6", n, norm, 5 * norm**2 + 36, draw, 4)


def _exponential(n: int) -> Quantities:
    """ĝ = e^{1.2 ε} ε: ‖ĝ − g‖² has a skewness in the thousands."""
    t = 1.2
    norm = t * math.exp(t**2 / 2)
    variance = (1 + 4 * t**2) * math.exp(2 * t**2) - norm**2

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        eps = generator.standard_normal((n, 1))
        return np.asarray(np.exp(t * eps) * eps)

    return _of("score function of an exponential", n, norm, variance, draw, 1)
