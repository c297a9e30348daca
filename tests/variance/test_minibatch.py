"""Noise of the choice of the batch: against every batch that there is, and how often its interval holds the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.statistics.finite import of_finite_population
from elbograd.benchmarks.variance.finite import MOST, data_chosen_from
from elbograd.benchmarks.variance.minibatch import sampled_variance
from elbograd.estimators import UsageError


def few_data(n):
    """A linear-Gaussian VAE of n training data."""
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3,noise=0.8]")
    problem.data["train"] = problem.data["train"][:n]
    return problem, problem.data["train"]


def gradient(problem, x):
    found = measure_variance(problem, "exact", x, details=False).mean
    return torch.cat([g.double().flatten() for g in found.values()])


@pytest.mark.parametrize("batch_size", [2, 3, 6])
def test_over_every_batch_that_there_is(batch_size):
    problem, data = few_data(7)
    batches = [data[list(chosen)] for chosen in itertools.combinations(range(7), batch_size)]
    gradients = torch.stack([gradient(problem, x) for x in batches])
    truth = float((gradients - gradients.mean(0)).square().sum(-1).mean())
    found = [measure_variance(problem, "exact", x).minibatch.mean for x in batches]
    # Of all batches the mean of an unbiased estimate is the truth; with replacement it is 7/(7 − B) times that.
    assert np.mean(found) == pytest.approx(truth, rel=1e-3)


def test_of_all_the_data_there_is_one_batch():
    problem, data = few_data(12)
    v = measure_variance(problem, "reparameterization", data[torch.randperm(12)], replicates=50)
    assert (v.minibatch.mean, *v.minibatch.interval()) == (0.0, 0.0, 0.0)
    (row,) = [row for row in v.rows() if row["metric"] == "minibatch_variance"]
    assert (row["value"], row["ci_low"], row["ci_high"], row["reason"]) == (0.0, 0.0, 0.0, "")
    assert measure_variance(problem, "reparameterization", data[:1], replicates=50).minibatch is None


def test_the_data_that_a_batch_was_chosen_from():
    problem, data = few_data(30)
    assert data_chosen_from(problem, data[3:10]) == 30  # the last batch of a pass holds two
    assert data_chosen_from(problem, data[:30]) == 30
    assert data_chosen_from(problem, data[:4] + 1) is None  # brought along
    assert data_chosen_from(problem, torch.cat([data, data])) is None  # more than there are
    assert data_chosen_from(load_problem("vae"), data_of("vae")) is None  # binarized anew at each pass
    assert (
        data_chosen_from(load_problem("vae[binarization=fixed]"), data_of("vae[binarization=fixed]")) == 1500
    )
    problem.data["train"] = torch.randn(4 * MOST + 1, 3)
    assert data_chosen_from(problem, problem.data["train"][:4]) is None  # less than 1% of them


def data_of(name):
    return next(load_problem(name).batches("train", 64, torch.Generator().manual_seed(2)))


def test_a_problem_without_data_is_measured_all_the_same(monkeypatch):
    problem, data = few_data(8)

    def none(self, split, batch_size, generator=None):
        raise UsageError("no data")

    expected = measure_variance(problem, "exact", data[:4]).minibatch.mean
    monkeypatch.setattr(type(problem), "batches", none)
    found = measure_variance(problem, "exact", data[:4]).minibatch.mean
    assert found == pytest.approx(2 * expected)  # as if of infinitely many


def replicates_of_choice(population, batch_size, repetitions, seed=0):
    """(distances, centred) of batches chosen without replacement."""
    generator = np.random.default_rng(seed)
    for _ in range(repetitions):
        x = torch.from_numpy(population[generator.choice(len(population), batch_size, replace=False)])
        centred = x - x.mean(0)
        yield centred.square().sum(-1), centred


@pytest.mark.parametrize(("size", "batch_size"), [(40, 20), (100, 64), (400, 64), (400, 256)])
def test_the_interval_holds_the_truth(size, batch_size):
    # 400 repetitions: fewer than 90% have a chance of 3e-5 at 95%. As if of infinitely many: below 60% in all.
    population = np.random.default_rng(size).normal(size=(size, 20))
    truth = (1 / batch_size - 1 / size) * population.var(0, ddof=1).sum()
    held, infinite = 0, 0
    for distances, centred in replicates_of_choice(population, batch_size, 400):
        moments = sampled_variance(distances, centred)
        low, high = of_finite_population(moments, batch_size / size).interval()
        held += low <= truth <= high
        low, high = moments.interval()
        infinite += low <= truth <= high
    assert held / 400 > 0.9
    assert infinite / 400 < 0.6


def test_heavy_tails_are_told():
    # Log-normal lengths of variance 13: far more than 64 data are needed, and nearly every batch shows it.
    generator = np.random.default_rng(1)
    population = generator.normal(size=(400, 20)) * generator.lognormal(sigma=0.9, size=(400, 1))
    marked = [
        of_finite_population(sampled_variance(distances, centred), 64 / 400).needed
        for distances, centred in replicates_of_choice(population, 64, 200)
    ]
    assert sum(needed is not None for needed in marked) > 190


def test_a_subset_stands_in_for_the_covariance_of_many_data():
    population = np.random.default_rng(0).normal(size=(300, 5))
    ((distances, centred),) = replicates_of_choice(population, 200, 1)
    whole, part = sampled_variance(distances, centred), sampled_variance(distances, centred[:64])
    assert part.mean == whole.mean
    assert part.stderr == pytest.approx(whole.stderr, rel=0.1)
