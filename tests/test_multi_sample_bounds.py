"""Gradients of the importance-weighted bound, against exact expectations over all K-tuples."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from elbograd.benchmarks.certification.cell import Settings
from elbograd.benchmarks.certification.certify import builder, certify_problem
from elbograd.benchmarks.evaluation import eta_gradients, seeded
from elbograd.benchmarks.exact_objectives import exact_gradients
from elbograd.benchmarks.placement import first_batch, place
from elbograd.benchmarks.problems import load_problem
from elbograd.estimators import create
from elbograd.estimators.testing import check_estimator

CPU = torch.device("cpu")


def at(name, batch=2):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, batch, 0)
    with torch.no_grad():
        return problem, x, problem.encoder(x)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
@pytest.mark.parametrize("k", [2, 3])
def test_vimco_has_the_exact_mean_over_all_tuples(mean, k):
    problem, x, eta = at("small-vae[posterior=bernoulli]", 1)
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    tuples = torch.tensor(list(itertools.product(range(8), repeat=k)))
    z = outcomes[tuples].transpose(0, 1).unsqueeze(2)  # (K, tuples, 1, 3)
    leaf = eta.expand(len(tuples), *eta.shape).clone().requires_grad_()
    q = problem.posterior(leaf)
    q.sample = lambda shape: z
    estimate = create("vimco", mean=mean)(q, problem.target(x), k)
    (h,) = torch.autograd.grad(estimate.surrogate.sum(), leaf, retain_graph=True)
    weights = problem.posterior(eta).log_prob(z).sum(0).exp()
    exact = exact_gradients(
        problem.posterior, eta, problem.target, x, list(problem.decoder.parameters()), "iwae", k
    )
    torch.testing.assert_close((weights.unsqueeze(-1) * h).sum(0), exact.eta_grad)
    torch.testing.assert_close((weights * estimate.value).sum(0), exact.value)
    without_own = create("vimco", mean=mean)
    without_own._without_each = lambda log_w: log_w.logsumexp(0).expand_as(log_w) - math.log(k)
    wrong = without_own(q, problem.target(x), k)
    (h,) = torch.autograd.grad(wrong.surrogate.sum(), leaf)
    assert not torch.allclose((weights.unsqueeze(-1) * h).sum(0), exact.eta_grad, rtol=1e-3)


def test_at_one_sample_dreg_is_sticking_the_landing():
    problem, x, eta = at("small-vae")
    found = []
    for name in ("dreg", "iwae-sticking-the-landing", "sticking-the-landing"):
        with seeded(0, CPU):
            found.append(eta_gradients(problem, create(name), problem.target(x), eta, 50, 1))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_at_the_true_posterior_dreg_has_no_variance():
    problem, x, eta = at("conjugate[latent_dim=2]", 8)
    for name in ("dreg", "iwae-sticking-the-landing"):
        h = eta_gradients(problem, create(name), problem.target(x), eta, 200, 5)
        assert float(h.abs().max()) < 1e-5  # weights in float32
    assert float(eta_gradients(problem, create("iwae"), problem.target(x), eta, 200, 5).var(0).max()) > 1e-3


def test_dreg_holds_and_the_other_measures_its_bias():
    # A correct estimator fails a check here with probability 2e-4 at most.
    settings = Settings(tolerance=0.1, confirm_level=1e-3)
    name = "linear-gaussian[latent_dim=1,data_dim=2]"
    right = certify_problem(builder("dreg"), load_problem(name), name, settings)
    assert right.failures == []
    assert right.bias_bound <= 0.1
    biased = certify_problem(builder("iwae-sticking-the-landing"), load_problem(name), name, settings)
    assert biased.failures == []
    assert biased.bias.low > 0.1
    pretends = create("iwae-sticking-the-landing")
    pretends.unbiased = True
    wrong = certify_problem(builder(pretends), load_problem(name), name, settings)
    assert any(line.startswith("gradient on") for line in wrong.failures)


def test_the_signal_to_noise_ratio_of_dreg_does_not_fall_with_k():
    from elbograd.benchmarks import measure_variance

    def snr(name, k):
        problem = "conjugate[latent_dim=2,distance=0.3]"
        return measure_variance(problem, name, num_samples=k, replicates=4000).snr

    assert snr("dreg", 64) > snr("dreg", 4)
    assert snr("iwae", 64) < snr("iwae", 4)


@pytest.mark.parametrize("name", ["dreg", "vimco", "iwae-sticking-the-landing"])
def test_it_conforms_and_refuses_what_it_cannot_do(name):
    assert len(check_estimator(name)) > 15
    problem, x, eta = at("quadratic", 1)
    reason = create(name).supports(problem.posterior(eta), problem.target(x), 2)
    assert reason == "needs a prior: importance weights are p(x, z) / q(z)"
