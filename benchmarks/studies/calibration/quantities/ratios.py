"""Ratios of variances and of work: common random numbers and independent draws, light and heavy tails."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from ....advice.measured import Measured, compare
from ....statistics.intervals import product_interval
from ....statistics.moments import mean_moments
from ....statistics.ratios import Ratio, independent_ratio, paired_ratio
from ....statistics.timings import timing_interval
from ....variance.ratio import joint_moments
from .base import Found, Printed, Quantities

_FAMILY = 1 - 0.05 / 10  # of each of ten comparisons


def cases() -> Iterator[Quantities]:
    """Contributions that are exponential (light) and log-normal of skewness 6 (heavy), correlated and not."""
    for tails in ("light", "heavy"):
        for n in (20, 40, 100, 1000):
            yield _ratio(tails, n)
        yield _work(tails, 1000)
    yield _advice(500)


def quick() -> Quantities:
    """Light tails."""
    return _ratio("light", 100)


def _contributions(generator: np.random.Generator, tails: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two of mean 1, drawn from common numbers for the most part."""
    common, one, other = generator.standard_normal((3, n))
    pair = [0.9 * common + math.sqrt(1 - 0.81) * own for own in (one, other)]
    if tails == "light":
        return pair[0] ** 2, pair[1] ** 2
    first, second = (np.exp(z - 0.5) for z in pair)
    return first, second


def _found(ratio: Ratio) -> Found:
    return Found(ratio.value, ratio.ci_low, ratio.ci_high, ratio.needed is not None)


def _ratio(tails: str, n: int) -> Quantities:
    def draw(generator: np.random.Generator) -> Printed:
        u, v = _contributions(generator, tails, n)
        w, _ = _contributions(generator, tails, n)
        a, b, c = (mean_moments(part) for part in (u, v, w))
        joint = joint_moments(a, b, *(torch.from_numpy(part).unsqueeze(0) for part in (u, v)))
        return {
            "variance_ratio": _found(paired_ratio(joint)),
            "independent ratio": _found(independent_ratio(a, c)),
        }

    return Quantities(f"{tails} tails", n, {"variance_ratio": 1.0, "independent ratio": 1.0}, draw)


def _timings(generator: np.random.Generator, count: int) -> list[float]:
    return [float(t) for t in generator.lognormal(sigma=0.1, size=count)]


def _work(tails: str, n: int) -> Quantities:
    def draw(generator: np.random.Generator) -> Printed:
        moments, seconds = mean_moments(_contributions(generator, tails, n)[0]), _timings(generator, 25)
        product = product_interval((moments.mean, *moments.interval()), timing_interval(seconds))
        return {"work_normalized_variance": Found(*product, moments.needed is not None)}

    truth = {"work_normalized_variance": 1.0}
    return Quantities(f"{tails} tails, 25 timings", n, truth, draw, frozenset(truth))


def _advice(n: int) -> Quantities:
    """One of ten comparisons, each at 99.5%."""

    def draw(generator: np.random.Generator) -> Printed:
        parts, seconds = _contributions(generator, "light", n), [_timings(generator, 25) for _ in range(2)]
        one, other = (
            Measured(
                name, "elbo", 1, 0, mean_moments(u), tuple(times),
                contributions=torch.from_numpy(u).unsqueeze(0), stream=0,
            )
            for name, u, times in zip("ab", parts, seconds, strict=True)
        )  # fmt: skip
        return {"work_normalized_variance_ratio": Found(*compare(one, other, _FAMILY))}

    truth = {"work_normalized_variance_ratio": 1.0}
    return Quantities("one of ten comparisons", n, truth, draw, frozenset(truth), confidence=_FAMILY)
