"""Minibatch variance: populations of few data and many, of like gradients and of unlike ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ....problems.linear_gaussian import LinearGaussianVAE
from ....problems.registry import load_problem
from ....statistics.finite import of_finite_population
from ....variance.measure import measure_variance
from ....variance.minibatch import sampled_variance
from .base import Printed, Quantities, of_moments

_SIZES = ((20, 4), (40, 20), (100, 64), (400, 64), (1000, 256), (100_000, 64))


def cases() -> Iterator[Quantities]:
    """Gradients of fixed data, exact; and those of a model, with Monte Carlo noise in them."""
    for tails, sigma in (("light", 0.0), ("heavy", 0.7)):
        for size, batch in _SIZES:
            yield _exact(tails, sigma, size, batch)
    yield _measured()


def quick() -> Quantities:
    """A batch of few data."""
    return _exact("light", 0.0, 400, 64)


def _exact(tails: str, sigma: float, size: int, batch: int) -> Quantities:
    generator = np.random.default_rng(size)
    population = generator.normal(size=(size, 20)) * generator.lognormal(sigma=sigma, size=(size, 1))
    truth = (1 / batch - 1 / size) * population.var(0, ddof=1).sum()

    def draw(generator: np.random.Generator) -> Printed:
        chosen = torch.from_numpy(population[generator.choice(size, batch, replace=False, shuffle=False)])
        centred = chosen - chosen.mean(0)
        moments = sampled_variance(centred.square().sum(-1), centred[:64])
        return {"minibatch_variance": of_moments(of_finite_population(moments, batch / size))}

    return Quantities(f"{tails} tails, B = {batch} of N = {size}", batch, {"minibatch_variance": truth}, draw)


def _measured() -> Quantities:
    """64 of 200 data of a linear-Gaussian VAE, their gradients estimated from 200 replicates."""
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3,noise=2]")
    assert isinstance(problem, LinearGaussianVAE)
    problem.data["train"] = data = problem.data["train"][:200]
    each = [
        torch.cat(
            [g.double().flatten() for g in measure_variance(problem, "exact", x, details=False).mean.values()]
        )
        for x in data.split(1)
    ]
    truth = (1 / 64 - 1 / 200) * float(torch.stack(each).var(0).sum())

    def draw(generator: np.random.Generator) -> Printed:
        x, seed = data[torch.from_numpy(generator.permutation(200)[:64])], int(generator.integers(2**31))
        v = measure_variance(problem, "reparameterization", x, replicates=200, seed=seed)
        return {} if v.minibatch is None else {"minibatch_variance": of_moments(v.minibatch)}

    return Quantities(
        "linear-gaussian, B = 64 of N = 200, R = 200", 64, {"minibatch_variance": truth}, draw, share=0.25
    )
