"""Gradients of the importance-weighted bound, against exact expectations over all K-tuples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from elbograd.benchmarks.gradients import eta_gradients, seeded
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, create
from elbograd.estimators.posteriors import gaussians
from enumerated import Enumerated
from oracles import complex_step, hermite, iwae_bound_of_two, normal_log_density
from torch import distributions as td

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


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_of_two_samples_vimco_has_one_other_and_both_means_are_its_weight(mean):
    """ĝ = Σ_k (log ½(w_1 + w_2) − log w_{3−k} − ŵ_k) s_k, and Σ_k ŵ_k = 1; eq. 8-10 of the paper at K = 2."""
    given = Enumerated(2)
    h, value = given.draws(create("vimco", mean=mean), 2)
    log_w, scores = given.log_w(given.z), given.z - given.eta.sigmoid()
    bound = torch.logaddexp(*log_w) - math.log(2)
    share = torch.sigmoid(log_w[0] - log_w[1])
    credits = torch.stack((bound - log_w[1] - share, bound - log_w[0] - (1 - share)))
    torch.testing.assert_close(h, (credits.unsqueeze(-1) * scores).sum(0)[:, 0])
    torch.testing.assert_close(value, bound)
    swapped = torch.stack((bound - log_w[0] - share, bound - log_w[1] - (1 - share)))
    assert not torch.allclose(h, (swapped.unsqueeze(-1) * scores).sum(0)[:, 0], rtol=1e-2)


def test_of_three_samples_the_means_of_vimco_differ_by_draws_and_not_on_average():
    given = Enumerated(3)
    geometric, arithmetic = (given.draws(create("vimco", mean=m), 3)[0] for m in ("geometric", "arithmetic"))
    assert not torch.allclose(geometric, arithmetic, rtol=1e-3)
    torch.testing.assert_close(given.mean(geometric), given.mean(arithmetic))


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_the_others_lower_the_variance_of_vimco_below_that_of_no_baseline(mean):
    given = Enumerated(3)
    _, with_others, _ = given.moments(create("vimco", mean=mean), 3)
    without = create("vimco", mean=mean)
    without._without_each = torch.zeros_like
    expected, variance, _ = given.moments(without, 3)
    torch.testing.assert_close(expected, given.moments(create("vimco"), 3)[0])
    assert (with_others < 0.1 * variance).all()


@pytest.mark.parametrize(
    ("name", "num_draws"),
    [
        ("vimco", 2),
        ("vimco[mean=arithmetic]", 2),
        ("ovis[auxiliary=2]", 4),
        ("ovis[form=asymptotic]", 2),
        ("ovis[form=asymptotic,gamma=0.5]", 2),
        ("reweighted-wake-sleep", 2),
        ("thermodynamic", 2),
    ],
)
def test_the_variance_of_random_draws_is_the_sum_over_all_of_them(name, num_draws):
    """5 standard errors of a variance: 6e-7 a coordinate."""
    given = Enumerated(num_draws)
    mean, variance, _ = given.moments(create(name), 2)
    with seeded(0, CPU):
        h = eta_gradients(given.problem, create(name), given.target, given.eta, 40_000, 2)[:, 0]
    squares = (h - mean).square()
    error = squares.std(0) / math.sqrt(len(h))
    assert ((squares.mean(0) - variance).abs() <= 5 * error).all()
    assert not ((squares.mean(0) - 1.2 * variance).abs() <= 5 * error).all()


@pytest.mark.parametrize("place", [(0.5, 0.3), (-0.4, 1.2)])
def test_dreg_has_the_gradient_of_the_bound_of_two_and_the_plain_path_has_not(place, monkeypatch):
    """Exact: Gauss-Hermite nodes of both samples' noise; L_2 and its complex steps by the same rule."""

    def log_joint(z):
        return -0.4 * z**2 + 1.5 * np.cos(z) + normal_log_density(z, 0.0, 1.0)

    zero = torch.zeros(1, dtype=torch.float64)
    prior = td.Independent(td.Normal(zero, zero + 1), 1)
    target = Target(lambda z: (-0.4 * z.square() + 1.5 * z.cos()).sum(-1), prior)
    points, weights = (torch.as_tensor(v) for v in hermite(2, 160))
    noise = points.T.unsqueeze(-1)
    monkeypatch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
    found = {}
    for name in ("dreg", "iwae-sticking-the-landing"):
        phi = [torch.full((len(weights), 1), v, dtype=torch.float64).requires_grad_() for v in place]
        q = td.Independent(td.Normal(*phi, validate_args=False), 1, validate_args=False)
        parts = torch.autograd.grad((weights * create(name)(q, target, 2).surrogate).sum(), phi)
        found[name] = np.array([float(part.sum()) for part in parts])
    mu, sigma = place
    exact = np.array(
        [
            complex_step(lambda m: iwae_bound_of_two(log_joint, m, sigma, 160), mu),
            complex_step(lambda s: iwae_bound_of_two(log_joint, mu, s, 160), sigma),
        ]
    )
    np.testing.assert_allclose(found["dreg"], exact, rtol=1e-5, atol=1e-6)
    assert np.abs(found["iwae-sticking-the-landing"] - exact).max() > 0.01


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


def test_the_signal_to_noise_ratio_of_dreg_does_not_fall_with_k():
    from elbograd.benchmarks import measure_variance

    def snr(name, k):
        problem = "conjugate[latent_dim=2,distance=0.3]"
        return measure_variance(problem, name, num_samples=k, replicates=4000).snr

    assert snr("dreg", 64) > snr("dreg", 4)
    assert snr("iwae", 64) < snr("iwae", 4)
