"""What the importance-weighted bound is held against: all states summed up, and annealing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.training.annealed import annealed_log_likelihood
from elbograd.benchmarks.training.batches import evaluation_data
from elbograd.benchmarks.training.exact_likelihood import exact_log_likelihood
from elbograd.benchmarks.training.held_out import importance_weighted_log_likelihood
from torch import distributions as td


def at(name, count=12):
    problem = load_problem(name)
    return problem, evaluation_data(problem, "test", count)


def test_the_exact_value_is_the_sum_over_all_states():
    problem, x = at("small-vae[posterior=bernoulli]")
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * q.event_shape[0]).reshape(
        -1, q.event_shape[0]
    )
    z = states.unsqueeze(1).expand(-1, len(x), -1)
    joint = target.log_likelihood(z) + target.prior.log_prob(z)
    assert exact_log_likelihood(problem, x) == pytest.approx(
        float(joint.detach().logsumexp(0).mean()), rel=1e-5
    )


@pytest.mark.parametrize(
    "name",
    [
        "small-vae[posterior=bernoulli]",
        "small-vae[posterior=categorical]",
        "small-hierarchy[lower=bernoulli,direction=top-down]",
    ],
)
def test_annealing_comes_to_the_exact_value(name):
    problem, x = at(name)
    exact = exact_log_likelihood(problem, x)
    found = annealed_log_likelihood(problem, x, chains=64, temperatures=100, seed=1)
    assert found == pytest.approx(exact, abs=0.03)


def test_a_conjugate_posterior_needs_no_annealing():
    problem, x = at("conjugate[latent_dim=2]")
    found = annealed_log_likelihood(problem, x, seed=1)
    assert found == pytest.approx(importance_weighted_log_likelihood(problem, x, 4, 0), abs=1e-3)


def test_annealing_is_nearer_where_q_is_poor():
    problem, x = at("linear-gaussian[latent_dim=3,data_dim=4]")
    truth = marginal(problem, x)
    bound = importance_weighted_log_likelihood(problem, x, 16, 0)
    annealed = annealed_log_likelihood(problem, x, chains=16, temperatures=300, seed=2)
    assert bound < truth - 1
    assert annealed == pytest.approx(truth, abs=0.3)


def marginal(problem, x):
    """log p(x) by 2,000,000 samples of the prior."""
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    parts = []
    with torch.no_grad():
        torch.manual_seed(0)
        for _ in range(40):
            z = target.prior.sample((50_000,)).reshape(50_000, -1, *q.event_shape)
            parts.append(target.log_likelihood(z.expand(-1, len(x), -1)).double().logsumexp(0))
    return float((torch.stack(parts).logsumexp(0) - math.log(40 * 50_000)).mean())


def test_there_is_none_without_a_prior_or_with_too_many_states():
    problem, x = at("quadratic[loc=0.7,scale=0.6,k=1.5]")
    assert annealed_log_likelihood(problem, x) is None
    assert exact_log_likelihood(problem, x) is None
    assert exact_log_likelihood(*at("bernoulli-vae[latent_dim=64]")) is None
    assert exact_log_likelihood(*at("vae")) is None


def test_random_numbers_of_the_caller_are_left_alone():
    problem, x = at("vae", 4)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = annealed_log_likelihood(problem, x, temperatures=5)
    assert torch.equal(torch.rand(1), expected)
    assert annealed_log_likelihood(problem, x, temperatures=5) == first


class Explosive:
    """Log-likelihoods whose gradients overflow, and a posterior that refuses what is no number."""

    def __init__(self):
        self.inner = load_problem("small-vae")
        self.encoder, self.decoder = self.inner.encoder, self.inner.decoder
        self.batches = self.inner.batches

    def posterior(self, eta):
        base = self.inner.posterior(eta).base_dist
        return td.Independent(td.Normal(base.loc, base.scale, validate_args=True), 1, validate_args=True)

    def target(self, x):
        target = self.inner.target(x)
        return replace(target, log_likelihood=lambda z: -((1e3 * z) ** 8).sum(-1))


def test_a_trajectory_that_leaves_the_numbers_is_rejected():
    problem = Explosive()
    x = evaluation_data(problem.inner, "test", 8)
    found = annealed_log_likelihood(problem, x, temperatures=30)
    assert math.isfinite(found)
    assert found < 0
