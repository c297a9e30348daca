"""Bias against references: bounds that cover, and that catch a planted bias.

Fixed seeds; a bound at 99% confidence fails to cover a true zero bias never (it is at least 0), and
a planted bias of known size at most once in a hundred.
"""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.jacobians.spectrum import largest_eigenvalue
from elbograd.benchmarks.oracles.bias import measure_bias
from elbograd.benchmarks.oracles.references import reference_gradient
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import create
from elbograd.estimators.methods.reparameterization import Reparameterization


class Shrunk(Reparameterization):
    """A gradient 5% too small: relative bias exactly 0.05."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(surrogate=0.95 * estimate.surrogate)


@pytest.fixture(scope="module")
def setting():
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3]")
    x = first_batch(problem, 8, 0)
    return problem, x, reference_gradient(problem, x)


def test_an_unbiased_estimator_gets_a_small_bound(setting):
    problem, x, reference = setting
    assert reference.kind == "closed-form"
    v = measure_variance(problem, "reparameterization", x, replicates=200_000)
    bias = measure_bias(problem, x, v, reference)
    assert bias.relative <= bias.bound < 0.01


def test_a_planted_bias_is_covered_and_seen(setting):
    problem, x, reference = setting
    v = measure_variance(problem, Shrunk(), x, replicates=200_000)
    bias = measure_bias(problem, x, v, reference)
    assert bias.bound >= 0.05
    assert bias.relative == pytest.approx(0.05, abs=0.005)


def test_exact_is_at_the_reference(setting):
    problem, x, reference = setting
    v = measure_variance(problem, "exact", x)
    assert measure_bias(problem, x, v, reference).bound < 1e-5


def test_a_long_run_is_the_reference_where_nothing_is_exact():
    problem = load_problem("vae[latent_dim=4,hidden=8]")
    x = first_batch(problem, 4, 0)
    reference = reference_gradient(problem, x)
    assert reference.kind == "long run of reparameterization (32768 estimates)"
    assert reference.trace > 0
    v = measure_variance(problem, "leave-one-out", x, num_samples=4, replicates=20_000)
    assert measure_bias(problem, x, v, reference).bound < 0.2


def test_the_largest_eigenvalue_is_that_of_the_written_out_matrix():
    problem = load_problem("vae[latent_dim=2,hidden=6]")
    x = first_batch(problem, 3, 0)
    root = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = root @ root.transpose(1, 2)
    rows = []
    for i in range(3):
        eta = problem.encoder(x[i : i + 1]).squeeze(0)
        grads = [torch.autograd.grad(e, list(problem.encoder.parameters()), retain_graph=True) for e in eta]
        rows.append(torch.stack([torch.cat([p.flatten() for p in g]) for g in grads]).double())
    matrix = sum(j.T @ c @ j for j, c in zip(rows, covariance, strict=True)) / 9
    truth = float(torch.linalg.eigvalsh(matrix).max())
    assert largest_eigenvalue(problem, x, covariance) == pytest.approx(truth, rel=0.01)


def test_create_is_used_by_name_or_instance():
    by_name = measure_variance("linear-gaussian", "reparameterization", replicates=100)
    by_instance = measure_variance(
        load_problem("linear-gaussian"), create("reparameterization"), replicates=100
    )
    assert by_name.total == by_instance.total
