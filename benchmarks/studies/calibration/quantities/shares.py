"""Shares of the total by datum, layer, parameter and part of η, and the variance in θ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....variance.measure import measure_variance
from ..cells import LINEAR_GAUSSIAN, Cell
from ..problems import placed
from ..truth import covariances, theta_variance
from .base import Printed, Quantities, of_moments


def cases() -> Iterator[Quantities]:
    """Pathwise gradients, and score functions, whose tails are heavy; θ takes full gradients."""
    for baseline in (None, 0.0):
        for n in (100, 1000):
            yield _shares(baseline, n)
    yield _theta(100)


def _shares(baseline: float | None, n: int) -> Quantities:
    problem, x = placed(Cell(LINEAR_GAUSSIAN, None))
    estimator = "reparameterization" if baseline is None else "score-function"
    each, squares, batch = covariances(baseline), x.double().square().sum(-1).numpy(), len(x)
    traces = np.array([np.diag(c) for c in each])
    by_datum = traces.sum(1) * (squares + 1) / batch**2
    truths = {
        "variance_by_datum": float(by_datum[0]),
        "variance_by_layer": float(by_datum.sum()),
        "variance of a bias": float(traces.sum() / batch**2),
        "eta_variance": float(traces[:, :2].sum() / batch),
    }

    def draw(generator: np.random.Generator) -> Printed:
        v = measure_variance(problem, estimator, x, replicates=n, seed=int(generator.integers(2**31)))
        found = (v.by_datum[0], next(iter(v.by_layer.values())), v.moments["bias"], v.by_eta["mean"])
        return {name: of_moments(moments) for name, moments in zip(truths, found, strict=True)}

    return Quantities(f"linear-gaussian {estimator}", n, truths, draw, share=0.25)


def _theta(n: int) -> Quantities:
    problem, x = placed(Cell(LINEAR_GAUSSIAN, None))

    def draw(generator: np.random.Generator) -> Printed:
        seed = int(generator.integers(2**31))
        v = measure_variance(
            problem,
            "reparameterization",
            x,
            replicates=n,
            wrt="theta",
            seed=seed,
            details=False,
        )
        return {"variance in θ": of_moments(v.moments[""])}

    return Quantities("linear-gaussian, full route", n, {"variance in θ": theta_variance()}, draw, share=0.1)
