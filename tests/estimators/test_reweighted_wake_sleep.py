"""Reweighted wake-sleep: exact expectations over all draws, and over quadrature nodes; its bias and its limit.

E_{p(z|x)}[∇_η log q(z)] for Bernoulli logits is E_{p(z|x)}[z] − sigmoid(η): the moments of q move to those of
the posterior.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from elbograd.benchmarks.gradients import eta_gradients
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, create
from elbograd.estimators.methods.reweighted_wake_sleep import ReweightedWakeSleep
from elbograd.estimators.posteriors import gaussians
from enumerated import OUTCOMES, Enumerated
from oracles import hermite
from torch import distributions as td

FORMS = ("score", "doubly-reparameterized")
PLACES = [(0.5, 0.6), (-0.4, 1.2), (0.1, 0.8)]
NODES = 160  # at which both sides have converged to 1e-5 and better


class DescendsInstead(ReweightedWakeSleep):
    """The gradient of +KL, as the papers write it, handed over as a direction of ascent."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(surrogate=-estimate.surrogate, value=estimate.value.detach())


class SquaredWeights(ReweightedWakeSleep):
    """Those of ``dreg``."""

    def weigh(self, normalized):
        return normalized.square()


class PlainWeights(ReweightedWakeSleep):
    """Those of ``iwae-sticking-the-landing``."""

    def weigh(self, normalized):
        return normalized


def solved(given, k, objective="inclusive-kl"):
    theta = list(given.problem.decoder.parameters())
    return exact_gradients(
        given.problem.posterior, given.eta, given.problem.target, given.x, theta, objective, k
    )


def posterior_mean(given):
    """E_{p(z|x)}[z], (3,), by Bayes' rule over the 8 outcomes."""
    z = OUTCOMES.reshape(8, 1, 3)
    log_joint = (given.target.log_likelihood(z) + given.target.prior.log_prob(z)).detach()
    return (log_joint.softmax(0) * z[:, 0]).sum(0)


# --- The exact objective ---


def test_the_exact_gradient_moves_the_mean_of_q_to_that_of_the_posterior():
    given = Enumerated(1)
    answer = solved(given, 2)
    expected = posterior_mean(given) - given.eta[0].sigmoid()
    torch.testing.assert_close(answer.eta_grad[0], expected)
    bound = solved(given, 2, "iwae")
    torch.testing.assert_close(answer.value, bound.value)
    torch.testing.assert_close(answer.theta_grad, bound.theta_grad)
    assert not torch.allclose(answer.eta_grad, bound.eta_grad, rtol=0.1)


def test_the_exact_gradient_is_that_of_the_kl_divergence_of_two_gaussians():
    """x = a z + N(0, s²), z ~ N(0, 1): −KL(N(m, v) ‖ N(μ, σ²)) by torch's closed form."""
    a, s, x = 1.4, 0.9, 0.7
    precision = 1 + a**2 / s**2
    m, v = torch.tensor(a * x / s**2 / precision), torch.tensor(1 / precision)
    zero = torch.zeros(1, dtype=torch.float64)

    def q_of(eta):
        loc, log_scale = eta.chunk(2, -1)
        return td.Independent(td.Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)

    def target_of(datum):
        prior = td.Independent(td.Normal(zero, zero + 1), 1)
        return Target(lambda z: td.Normal(a * z, s).log_prob(datum).sum(-1), prior)

    eta = torch.tensor([[0.3, math.log(0.8)]], dtype=torch.float64)
    data = torch.full((1, 1), x, dtype=torch.float64)
    answer = exact_gradients(q_of, eta, target_of, data, [], "inclusive-kl", 2)
    leaf = eta.clone().requires_grad_()
    divergence = td.kl_divergence(
        td.Independent(td.Normal(m.double(), v.double().sqrt()).expand((1, 1)), 1), q_of(leaf)
    )
    (expected,) = torch.autograd.grad(-divergence.sum(), leaf)
    torch.testing.assert_close(answer.eta_grad, expected, rtol=1e-6, atol=1e-8)


def test_at_the_posterior_the_exact_gradient_vanishes():
    problem = place(load_problem("conjugate[latent_dim=1]"), dtype=torch.float64)
    x = first_batch(problem, 2, 0)
    with torch.no_grad():
        eta = problem.encoder(x)
    theta = list(problem.decoder.parameters())
    answer = exact_gradients(problem.posterior, eta, problem.target, x, theta, "inclusive-kl", 2)
    assert float(answer.eta_grad.abs().max()) < 1e-5  # the weights are in float32


# --- The estimator ---


@pytest.mark.parametrize("k", [2, 3])
def test_mean_value_and_theta_gradient_over_all_tuples(k):
    given = Enumerated(k)
    estimator = ReweightedWakeSleep()
    mean, _, value = given.moments(estimator, k)
    scores = given.z - given.eta.sigmoid()
    weights = given.log_w(given.z).softmax(0).unsqueeze(-1)
    torch.testing.assert_close(mean, given.mean((weights * scores).sum(0)[:, 0]))
    answer = solved(given, k)
    torch.testing.assert_close(value, answer.value[0])
    torch.testing.assert_close(given.theta_gradient(estimator, k), answer.theta_grad)


def test_the_bias_is_one_over_k():
    """Self-normalized importance sampling: K × bias settles; measured exactly at K = 2, 3, 4, 5."""
    exact = solved(Enumerated(1), 2).eta_grad[0]
    scaled = []
    for k in (2, 3, 4, 5):
        mean, _, _ = Enumerated(k).moments(ReweightedWakeSleep(), k)
        scaled.append(k * float((mean - exact).norm()))
    biases = [s / k for s, k in zip(scaled, (2, 3, 4, 5), strict=True)]
    assert biases == sorted(biases, reverse=True)
    assert scaled[-1] == pytest.approx(scaled[-2], rel=0.1)
    wrong, _, _ = Enumerated(5).moments(DescendsInstead(), 5)
    assert float((wrong - exact).norm()) > 5 * biases[-1]


def test_at_one_sample_the_mean_is_zero_and_the_other_form_is_zero():
    given = Enumerated(1)
    q = given.problem.posterior(given.eta)
    for form in FORMS:
        reason = create("reweighted-wake-sleep", form=form).supports(q, given.target, 1)
        assert reason
    mean, variance, _ = given.moments(ReweightedWakeSleep(), 1)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    assert (variance > 0.1).all()
    problem = place(load_problem("linear-gaussian"), dtype=torch.float64)
    x = first_batch(problem, 2, 0)
    with torch.no_grad():
        eta = problem.encoder(x)
    form = ReweightedWakeSleep("doubly-reparameterized")
    assert not eta_gradients(problem, form, problem.target(x), eta, 10, 1).any()


def gaussian(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def target_of(theta):
    zero = torch.zeros(1, dtype=torch.float64)
    return Target(
        lambda z: (-0.4 * z.square() + 1.5 * z.cos() + theta * z.sin()).sum(-1), gaussian(zero, zero + 1)
    )


def expected(estimator, place, monkeypatch):
    """E of value and of the gradients in (μ, σ, θ) for K = 2, over Gauss-Hermite nodes of both samples."""
    points, weights = (torch.as_tensor(v) for v in hermite(2, NODES))
    noise = points.T.unsqueeze(-1)
    with monkeypatch.context() as patch:
        patch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
        theta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        phi = [torch.full((len(weights), 1), v, dtype=torch.float64).requires_grad_() for v in place]
        estimate = estimator(gaussian(*phi), target_of(theta), 2)
        surrogate, value = weights @ estimate.surrogate, weights @ estimate.value
        in_phi = torch.autograd.grad(surrogate, phi, retain_graph=True)
        (in_theta,) = torch.autograd.grad(value, theta)
    return np.array([value.item(), *(g.sum().item() for g in in_phi), in_theta.item()])


@pytest.mark.parametrize("place", PLACES)
def test_both_forms_have_one_expectation(place, monkeypatch):
    score, doubly = (expected(ReweightedWakeSleep(form), place, monkeypatch) for form in FORMS)
    np.testing.assert_allclose(score, doubly, rtol=1e-5, atol=1e-6)
    for wrong in (SquaredWeights, PlainWeights):
        found = expected(wrong("doubly-reparameterized"), place, monkeypatch)
        assert np.abs(found - score).max() > 0.01


@pytest.mark.parametrize("place", PLACES)
def test_reparameterization_adds_the_path_to_the_bound_that_this_takes_away(place, monkeypatch):
    """∇L_K = E Σ ŵ_k (path − score), so the biased path gradient less the wake-φ step is that of L_K."""
    path, wake, dreg = (
        expected(create(name), place, monkeypatch)
        for name in ("iwae-sticking-the-landing", "reweighted-wake-sleep", "dreg")
    )
    np.testing.assert_allclose((path - wake)[1:3], dreg[1:3], rtol=1e-5, atol=1e-6)


def test_at_the_posterior_the_doubly_reparameterized_form_has_no_variance():
    problem = load_problem("conjugate[latent_dim=2]")
    x = first_batch(problem, 4, 0)
    with torch.no_grad():
        eta = problem.encoder(x)
    score, doubly = (
        eta_gradients(problem, ReweightedWakeSleep(form), problem.target(x), eta, 100, 5) for form in FORMS
    )
    assert float(doubly.abs().max()) < 1e-5
    assert float(score.var(0).max()) > 1e-3
