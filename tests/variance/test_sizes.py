"""Batches, samples, latent sizes and replicates at their ends, against a closed form that knows them all.

The objective is E −‖z‖²/2 at z ~ N(μ, I), φ = μ. The pathwise gradient of one sample is −z, so the variance of
the batch-mean gradient is D/(S B). Intervals of 99.99%: a false alarm of 1e-4 a case, and fixed seeds.
"""

from __future__ import annotations

import copy

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.gradients import prepare, seeded
from elbograd.benchmarks.variance.chunks import split
from elbograd.benchmarks.variance.moments import Shares
from elbograd.benchmarks.variance.route import choose_route
from elbograd.estimators import Target, create
from torch import nn
from variances import holds


class Location(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.loc = nn.Parameter(torch.linspace(-1, 1, latent_dim))

    def forward(self, x):
        return self.loc.expand(len(x), -1)


class Quadratic:
    """D numbers, whatever the data."""

    def __init__(self, latent_dim):
        self.latent_dim = latent_dim
        self.encoder, self.decoder = Location(latent_dim), nn.Module()

    def posterior(self, eta):
        return torch.distributions.Independent(torch.distributions.Normal(eta, torch.ones_like(eta)), 1)

    def target(self, x):
        return Target(lambda z: -z.square().sum(-1) / 2)

    def batches(self, split, batch_size, generator):
        yield torch.ones(batch_size, 1)


SIZES = [
    *((batch_size, 1, 1) for batch_size in (1, 2, 255, 256, 1024)),
    *((2, num_samples, 1) for num_samples in (3, 100)),
    *((batch_size, 1, 128) for batch_size in (1, 2)),
    (256, 3, 8),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch_size", "num_samples", "latent_dim"), SIZES)
@pytest.mark.parametrize("route", ["factorized", "full"])
def test_the_variance_is_right_at_every_size(batch_size, num_samples, latent_dim, route, dtype):
    v = measure_variance(
        Quadratic(latent_dim),
        "reparameterization",
        num_samples=num_samples,
        batch_size=batch_size,
        replicates=300,
        route=route,
        dtype=dtype,
    )
    truth = latent_dim / num_samples / batch_size
    assert holds(v.moments[""], truth)
    assert holds(v.moments["loc"], truth)
    assert v.ci_high - v.ci_low < 0.6 * truth
    if route == "factorized":
        assert len(v.by_datum) == batch_size
        assert sum(share.mean for share in v.by_datum) == pytest.approx(truth, rel=0.6)
        assert sum(share.stderr**2 for share in v.by_datum) ** 0.5 == pytest.approx(
            v.moments[""].stderr, rel=0.3
        )


@pytest.mark.parametrize("batch_size", [1, 255, 256, 2**20])
def test_shares_are_scaled_by_powers_that_no_integer_of_64_bits_holds(batch_size):
    scale = batch_size**2
    parts = [torch.tensor([3.0, 7.0], dtype=torch.float64) for _ in range(5)]
    for part, power in zip(Shares(*parts).over(scale), (1, 2, 3, 4, 2), strict=True):
        expected = [3.0 / float(scale) ** power, 7.0 / float(scale) ** power]
        assert part.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("times", [2**24, 2**40])
def test_more_replicates_than_32_bits_count(times):
    # The same 500 replicates, each seen so many times: moments stay, errors fall.
    problem, estimator = Quadratic(2), create("reparameterization")
    x = torch.ones(3, 1)
    prepare(problem, estimator, x, 1, None)
    with seeded(0, x.device):
        route = choose_route(problem, estimator, x, 1)
        route.add(500)
    few = route.total()
    many = copy.copy(route)
    many.sums = copy.deepcopy(route.sums)
    for sums in (many.sums.first, many.sums.second, many.sums.cross, many.sums.contributions.powers):
        sums *= times
    many.sums.contributions.n *= times
    total = many.total()
    assert total.n == 500 * times
    assert total.mean == pytest.approx(few.mean * 499 / 500, rel=1e-9)
    assert total.stderr == pytest.approx(few.stderr / times**0.5, rel=0.01)
    assert total.skewness == pytest.approx(few.skewness / times**0.5, rel=0.02)
    assert many.kurtosis() == pytest.approx(route.kurtosis(), rel=0.02)


def test_the_sizes_of_many_chunks_are_not_listed():
    sizes = split(2**40 + 3, 64)
    assert next(iter(sizes)) == 64
    assert list(split(130, 64)) == [64, 64, 2]
    assert list(split(128, 64)) == [64, 64]
