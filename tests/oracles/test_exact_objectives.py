"""Exact values and gradients against algebra, brute-force sums and independent quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from elbograd.benchmarks.gradients import eta_gradients
from elbograd.benchmarks.oracles.gumbel_means import gumbel_softmax_gradient, gumbel_softmax_value
from elbograd.benchmarks.oracles.objectives import exact_gradients, exact_objective
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, create
from oracles import complex_step, iwae_bound_of_two, normal_log_density
from torch import distributions as td


def at(name, batch=2):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, batch, 0)
    with torch.no_grad():
        eta = problem.encoder(x)
    return problem, x, eta


def solved(name, objective="elbo", num_samples=1, batch=2):
    problem, x, eta = at(name, batch)
    theta = list(problem.decoder.parameters())
    return exact_gradients(problem.posterior, eta, problem.target, x, theta, objective, num_samples)


def gaussian(mu, sigma):
    return td.Independent(td.Normal(mu, sigma), 1)


# --- ELBO ---


def test_conjugate_elbo_is_the_evidence_and_its_gradient_vanishes():
    problem, x, _ = at("conjugate[latent_dim=3,data_dim=5]", 4)
    answer = solved("conjugate[latent_dim=3,data_dim=5]", batch=4)
    torch.testing.assert_close(answer.value, problem.log_evidence(x).detach())
    assert float(answer.eta_grad.abs().max()) < 1e-6  # the weights are in float32
    off = solved("conjugate[latent_dim=3,data_dim=5,distance=0.1]", batch=4)
    assert (off.value < answer.value - 1e-3).all()


def test_closed_form_and_quadrature_agree_on_the_linear_gaussian_model():
    problem, x, eta = at("linear-gaussian[latent_dim=2,data_dim=3]")
    q, target = problem.posterior(eta), problem.target(x)
    closed = exact_objective(q, target)
    integrated = exact_objective(q, Target(target.log_likelihood, target.prior))
    torch.testing.assert_close(closed, integrated, rtol=1e-10, atol=0)
    without_kl = exact_objective(q, Target(target.log_likelihood, None))
    assert not torch.allclose(closed, without_kl, rtol=1e-3)


def test_full_covariance_quadrature_integrates_a_quadratic_exactly():
    tril = torch.tensor([[0.7, 0.0], [-0.4, 1.2]], dtype=torch.float64)
    mean = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    q = td.MultivariateNormal(mean, scale_tril=tril)
    matrix = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64)
    value = exact_objective(q, Target(lambda z: ((z @ matrix) * z).sum(-1)))
    expected = (mean @ matrix @ mean.T).squeeze() + torch.trace(matrix @ tril @ tril.T)
    torch.testing.assert_close(value[0], expected)


def test_enumeration_is_the_sum_over_all_outcomes():
    problem, x, eta = at("small-vae[posterior=bernoulli]", 1)
    target = problem.target(x)
    total = 0.0
    p = eta[0].sigmoid()
    prior = problem.decoder["prior"]().sigmoid()
    for bits in itertools.product([0.0, 1.0], repeat=3):
        z = torch.tensor(bits, dtype=torch.float64)
        q_z = (p**z * (1 - p) ** (1 - z)).prod()
        p_z = (prior**z * (1 - prior) ** (1 - z)).prod()
        total = total + q_z * (target.log_likelihood(z.reshape(1, 1, 3)).squeeze() + p_z.log() - q_z.log())
    torch.testing.assert_close(exact_objective(problem.posterior(eta), target)[0], total)


@pytest.mark.parametrize("concentration", [0.4, 1.0, 3.7, 40.0])
def test_gamma_moments_are_those_of_the_gamma_distribution(concentration):
    alpha = torch.tensor([[concentration]], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor([[1.7]], dtype=torch.float64, requires_grad=True)
    q = td.Independent(td.Gamma(alpha, beta), 1)
    for f, expected in (
        (lambda z: z.sum(-1), alpha / beta),
        (lambda z: z.square().sum(-1), alpha * (alpha + 1) / beta**2),
        (lambda z: z.log().sum(-1), torch.digamma(alpha) - beta.log()),
    ):
        value = exact_objective(q, Target(f))
        torch.testing.assert_close(value, expected.sum(-1), rtol=1e-9, atol=1e-10)
        ours = torch.autograd.grad(value.sum(), (alpha, beta), retain_graph=True)
        exact = torch.autograd.grad(expected.sum(), (alpha, beta), retain_graph=True)
        torch.testing.assert_close(ours, exact, rtol=1e-7, atol=1e-9)


def test_gamma_kl_is_the_closed_form():
    q = td.Independent(td.Gamma(torch.tensor([[2.3]]).double(), torch.tensor([[0.7]]).double()), 1)
    prior = td.Independent(td.Gamma(torch.tensor([1.2]).double(), torch.tensor([1.9]).double()), 1)
    value = exact_objective(q, Target(lambda z: 0 * z.sum(-1), prior))
    torch.testing.assert_close(
        -value, td.kl_divergence(q.base_dist, prior.base_dist).sum(-1), rtol=1e-9, atol=0
    )


def test_torch_differentiates_gamma_samples_nearly_right():
    # dz/dα at fixed u is −∂F/∂α / q(z); torch's own is an approximation, good to about 1e-3.
    z = torch.linspace(0.2, 6.0, 30, dtype=torch.float64)
    alpha = torch.full_like(z, 1.8)
    step = 1e-5
    derivative = (torch.special.gammainc(alpha + step, z) - torch.special.gammainc(alpha - step, z)) / (
        2 * step
    )
    exact = -derivative / td.Gamma(alpha, 1.0).log_prob(z).exp()
    ours = torch._standard_gamma_grad(alpha, z)
    error = float((ours / exact - 1).abs().max())
    assert error < 2e-3


def test_theta_gradient_is_that_of_the_mean_over_data():
    name = "small-vae"
    problem, x, eta = at(name, 3)
    answer = solved(name, batch=3)
    theta = list(problem.decoder.parameters())
    value = exact_objective(problem.posterior(eta), problem.target(x)).mean()
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(value, theta)])
    torch.testing.assert_close(answer.theta_grad, flat)


def test_logistic_regression_expectation_is_that_of_samples():
    problem = place(load_problem("logistic-regression"), dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.float64)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    torch.manual_seed(0)
    f = target.log_likelihood(q.sample((40_000,)))[:, 0]
    assert abs(float(f.mean() - target.expectation(q).detach())) < 5 * float(f.std()) / 200  # 6e-7


# --- The importance-weighted bound ---


def test_the_bound_of_two_agrees_with_an_independent_quadrature():
    def log_joint(z):
        return np.cos(1.3 * z) - 0.2 * z**2 + normal_log_density(z, 0.2, 1.5)

    mu = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    prior = gaussian(torch.tensor([0.2]).double(), torch.tensor([1.5]).double())
    target = Target(lambda z: (torch.cos(1.3 * z) - 0.2 * z.square()).sum(-1), prior)
    value = exact_objective(gaussian(mu, sigma), target, "iwae", 2)
    expected = iwae_bound_of_two(log_joint, 0.4, 0.8, 96).real
    assert float(value) == pytest.approx(expected, rel=1e-9)
    in_mu, in_sigma = torch.autograd.grad(value.sum(), (mu, sigma))
    assert float(in_mu) == pytest.approx(
        complex_step(lambda m: iwae_bound_of_two(log_joint, m, 0.8, 96), 0.4), rel=1e-7
    )
    assert float(in_sigma) == pytest.approx(
        complex_step(lambda s: iwae_bound_of_two(log_joint, 0.4, s, 96), 0.8), rel=1e-7
    )


def test_the_bound_rises_from_the_elbo_towards_the_evidence():
    problem, x, eta = at("small-vae[posterior=bernoulli]", 2)
    q, target = problem.posterior(eta), problem.target(x)
    bounds = [exact_objective(q, target, "iwae", k) for k in (1, 2, 4)]
    torch.testing.assert_close(bounds[0], exact_objective(q, target))
    prior = problem.posterior(problem.decoder["prior"]())
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64).unsqueeze(1)
    evidence = (target.log_likelihood(z.expand(8, 2, 3)) + prior.log_prob(z)).logsumexp(0)
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] < evidence).all()


@pytest.mark.parametrize(
    ("name", "objective", "samples", "reason"),
    [
        ("vae", "elbo", 1, "latent dimension 8 is too large for quadrature (at most 3)"),
        ("small-vae", "iwae", 2, "latent dimension 2 of 2 samples is too large for quadrature (at most 3)"),
        ("small-vae[posterior=bernoulli]", "iwae", 7, "8^7 outcomes are too many to enumerate"),
        ("small-vae", "relaxed", 1, "no exact value of the objective 'relaxed' is known"),
        ("quadratic", "iwae", 2, "the importance-weighted bound needs a prior"),
        ("cosine[k=300]", "elbo", 1, "the quadrature has not converged"),
    ],
)
def test_what_cannot_be_solved_says_why(name, objective, samples, reason):
    assert solved(name, objective, samples, batch=1).startswith(reason)


# --- Variances ---


def variance_of(spec, name, num_samples, batch=2):
    problem, x, eta = at(name, batch)
    return exact_variance(create(spec), problem.posterior, eta, problem.target(x), num_samples)


@pytest.mark.parametrize(("k", "mu", "sigma"), [(0.5, 1.3, 0.7), (-1.0, 0.2, 2.0)])
def test_quadratic_variances_are_the_closed_forms(k, mu, sigma):
    name, d, s = f"quadratic[loc={mu},scale={sigma},k={k}]", mu - k, sigma
    expected = {
        "score-function": (d**4 / s**2 + 14 * d**2 + 15 * s**2, 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2),
        f"constant-baseline[value={-(d**2 + s**2)}]": (8 * d**2 + 10 * s**2, 40 * d**2 + 56 * s**2),
        "reparameterization": (4 * s**2, 4 * d**2 + 8 * s**2),
        "exact": (0.0, 0.0),
    }
    for spec, forms in expected.items():
        found = variance_of(spec, name, 1, batch=1)
        torch.testing.assert_close(found[0], torch.tensor(forms, dtype=torch.float64), rtol=2e-6, atol=1e-12)
        torch.testing.assert_close(variance_of(spec, name, 4, batch=1), found / 4)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("num_samples", [2, 3])
def test_leave_one_out_is_the_sum_over_all_tuples(kl, num_samples):
    problem, x, eta = at("small-vae[posterior=bernoulli]", 1)
    estimator = create("leave-one-out", kl=kl)
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    tuples = torch.tensor(list(itertools.product(range(8), repeat=num_samples)))
    z = outcomes[tuples].transpose(0, 1).unsqueeze(2)  # (S, tuples, 1, 3)
    leaf = eta.expand(len(tuples), *eta.shape).clone().requires_grad_()
    q = problem.posterior(leaf)
    q.sample = lambda shape: z
    estimate = estimator(q, problem.target(x), num_samples)
    (h,) = torch.autograd.grad(estimate.surrogate.sum(), leaf)
    weights = problem.posterior(eta).log_prob(z).sum(0).exp().unsqueeze(-1)  # (tuples, 1, 1)
    mean = (weights * h).sum(0)
    expected = (weights * (h - mean).square()).sum(0)
    found = exact_variance(estimator, problem.posterior, eta, problem.target(x), num_samples)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(mean, solved("small-vae[posterior=bernoulli]", batch=1).eta_grad)


def test_pathwise_variances_with_a_sampled_kl_are_those_of_draws():
    # 5 standard errors of a variance of light-tailed draws: 6e-7 a coordinate.
    for spec in ("reparameterization[kl=sampled]", "sticking-the-landing", "reparameterization"):
        problem, x, eta = at("small-vae", 2)
        torch.manual_seed(0)
        h = eta_gradients(problem, create(spec), problem.target(x), eta, 40_000, 1)
        found = variance_of(spec, "small-vae", 1)
        squares = (h - h.mean(0)).square()
        error = squares.std(0) / math.sqrt(len(h))
        assert bool(((squares.mean(0) - found).abs() <= 5 * error).all())


def test_a_variance_is_known_only_where_its_quadrature_has_converged():
    # Var of k sin(kz): ½ k² (1 − cos(2kμ) e^{−2k²σ²}) less the squared mean; at k = 14 only the mean converges.
    k, mu = 5.0, 0.9
    mean = k * math.sin(k * mu) * math.exp(-(k**2) / 2)
    expected = 0.5 * k**2 * (1 - math.cos(2 * k * mu) * math.exp(-2 * k**2)) - mean**2
    found = variance_of("reparameterization", "cosine[loc=0.9,scale=1,k=5]", 1, batch=1)
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-6)
    rough = "cosine[loc=0.9,scale=1,k=14]"
    assert not isinstance(solved(rough, batch=1), str)
    assert variance_of("reparameterization", rough, 1, batch=1) is None


def test_a_class_of_ones_own_has_no_known_variance():
    class Own(type(create("score-function"))):
        pass

    problem, x, eta = at("small-vae")
    assert exact_variance(Own(), problem.posterior, eta, problem.target(x), 1) is None
    assert variance_of("optimal-baseline", "small-vae", 2) is None


# --- The problems are problems ---


@pytest.mark.parametrize(
    "name",
    [
        "conjugate",
        "gamma-poisson",
        "gamma-poisson[latent_dim=2]",
        "small-vae",
        "small-vae[posterior=full-gaussian]",
        "small-vae[posterior=bernoulli]",
        "small-vae[posterior=categorical]",
        "logistic-regression",
    ],
)
def test_a_problem_is_measured_and_trained(name):
    from elbograd.benchmarks import measure_variance, train

    v = measure_variance(name, "leave-one-out", num_samples=2, replicates=60)
    assert v.total > 0
    assert v.route == "factorized"
    run = train(name, "leave-one-out", steps=3, num_samples=2)
    assert math.isfinite(run.history[-1].heldout_objective)


# --- Relaxed bits ---


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("logit", [-40.0, -2.2, 0.3, 6.0])
def test_one_relaxed_bit_agrees_with_another_quadrature(logit, temperature):
    """Panels in the noise there, one rule in a variable that follows z here."""
    leaf = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    q = td.Independent(td.Bernoulli(logits=leaf), 1)
    target = Target(lambda z: -((z.squeeze(-1) - 0.45) ** 2))
    value = exact_objective(q, target, f"relaxed[temperature={temperature}]")
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    expected = gumbel_softmax_value(lambda z: -((z - 0.45) ** 2), logit, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    derivative = gumbel_softmax_gradient(lambda z: -2 * (z - 0.45), logit, temperature)
    assert slope.item() == pytest.approx(derivative, rel=1e-8, abs=1e-15)


def test_relaxed_bits_that_enter_apart_are_a_sum_and_the_kl_is_that_of_the_bits():
    logits = torch.tensor([[-1.2, 0.4, 2.0]], dtype=torch.float64)
    q, prior = (td.Independent(td.Bernoulli(logits=at), 1) for at in (logits, 0 * logits + 0.3))
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    target = Target(lambda z: (weights * z.square()).sum(-1), prior)
    value = exact_objective(q, target, "relaxed[temperature=0.7]")
    each = [gumbel_softmax_value(torch.square, float(logit), 0.7) for logit in logits[0]]
    expected = sum(w * e for w, e in zip(weights.tolist(), each, strict=True))
    expected -= td.kl_divergence(q, prior).item()
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("relaxed", "no exact value of the objective 'relaxed' is known"),
        ("relaxed[temperature=cold]", "no exact value"),
        ("relaxed[temperature=1]", "no quadrature for the relaxation of a OneHotCategorical"),
    ],
)
def test_what_relaxation_has_no_exact_value_is_told(objective, message):
    q = td.OneHotCategorical(logits=torch.zeros(2, 3, dtype=torch.float64))
    assert message in exact_objective(q, Target(lambda z: z.sum(-1)), objective)
