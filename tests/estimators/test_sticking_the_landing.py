"""Sticking-the-landing on a linear-Gaussian model in one dimension, by algebra.

x = a z + b + N(0, s²), z ~ N(0, 1), q = N(μ, σ²). The posterior is Gaussian with precision Λ = 1 + a²/s². Along
z = μ + σε the derivative of log p(x, z) − log q(z), φ cut out of log q, is c + eε with c = a(x − b − aμ)/s² − μ
and e = 1/σ − σΛ, so that ĝ = (c + eε)(1, ε) in (μ, σ): mean (c, e), variance (e², c² + 2e²). Keeping the score
adds −(ε/σ, (ε² − 1)/σ): e becomes −σΛ in μ, and in σ ĝ = 1/σ + cε − σΛε².

Expectations over ε are Gauss-Hermite sums, exact here: nothing below is random but where it says so.
"""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.methods.reparameterization import Reparameterization
from elbograd.estimators.methods.sticking_the_landing import StickingTheLanding
from elbograd.estimators.posteriors import gaussians
from oracles import hermite
from torch import distributions as td

A, B, S, X = 1.4, -0.3, 0.6, 1.1
PRECISION = 1 + A**2 / S**2
POSTERIOR = A * (X - B) / S**2 / PRECISION, PRECISION**-0.5
PLACES = [(0.5, 0.3), (-0.8, 2.0), POSTERIOR]


class ScoreNotCut(Reparameterization):
    """The total derivative: the slip is to detach nothing."""

    def __init__(self):
        super().__init__(kl="sampled")


class LogDensityDetached(StickingTheLanding):
    """log q detached as a whole, its derivative along the path included: the entropy has no gradient left."""

    def forward(self, q, target, num_samples):
        z = gaussians.rsample(q, num_samples)
        log_ratio = target.prior.log_prob(z) - q.log_prob(z).detach()
        elbo = (target.log_likelihood(z) + log_ratio).mean(0)
        return Estimate(elbo, elbo)


def moments(q):
    return q.base_dist.loc, q.base_dist.scale


def gaussian(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def linear_gaussian(theta=None):
    offset = B if theta is None else theta
    zero = torch.zeros(1, dtype=torch.float64)
    return Target(
        lambda z: td.Normal(A * z + offset, S).log_prob(z.new_tensor(X)).sum(-1), gaussian(zero, zero + 1)
    )


def nodes(monkeypatch, num_samples=1):
    """From here on Gaussians draw z at Gauss-Hermite nodes, one an entry of the batch; their weights."""
    points, weights = (torch.as_tensor(v) for v in hermite(num_samples, 20))
    noise = points.T.unsqueeze(-1)  # (S, nodes^S, 1)
    monkeypatch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
    return weights


def leaves(place, batch):
    return tuple(torch.full((batch, 1), v, dtype=torch.float64).requires_grad_() for v in place)


def mean_and_variance(estimator, place, monkeypatch, target=None):
    """Of ĝ in (μ, σ), exactly."""
    weights = nodes(monkeypatch)
    phi = leaves(place, len(weights))
    surrogate = estimator(gaussian(*phi), target or linear_gaussian(), 1).surrogate
    h = torch.cat(torch.autograd.grad(surrogate.sum(), phi), -1)
    mean = weights @ h
    return mean, weights @ (h - mean).square()


def coefficients(mu, sigma):
    return A * (X - B - A * mu) / S**2 - mu, 1 / sigma - sigma * PRECISION


def close(found, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    return torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_mean_and_variance(place, monkeypatch):
    mean, variance = mean_and_variance(StickingTheLanding(), place, monkeypatch)
    c, e = coefficients(*place)
    assert close(mean, (c, e))
    assert close(variance, (e**2, c**2 + 2 * e**2))


@pytest.mark.parametrize("place", PLACES)
def test_phi_not_cut_has_the_mean_and_another_variance(place, monkeypatch):
    mean, variance = mean_and_variance(ScoreNotCut(), place, monkeypatch)
    (c, e), sigma = coefficients(*place), place[1]
    assert close(mean, (c, e))
    assert not close(variance, (e**2, c**2 + 2 * e**2))
    assert close(variance, ((sigma * PRECISION) ** 2, c**2 + 2 * (sigma * PRECISION) ** 2))


def test_log_q_detached_as_a_whole_is_seen_in_the_mean(monkeypatch):
    mean, _ = mean_and_variance(LogDensityDetached(), PLACES[0], monkeypatch)
    assert not close(mean, coefficients(*PLACES[0]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("estimator", "zero"), [(StickingTheLanding, True), (ScoreNotCut, False)])
def test_zero_variance_where_q_is_the_posterior(estimator, zero, dtype, tolerance):
    """Every one of 10,000 random estimates is zero to rounding, and the value is log p(x)."""
    torch.manual_seed(0)
    phi = tuple(torch.full((10_000, 1), v, dtype=dtype).requires_grad_() for v in POSTERIOR)
    prior = gaussian(torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype))
    target = Target(linear_gaussian().log_likelihood, prior)
    estimate = estimator()(gaussian(*phi), target, 2)
    assert estimate.surrogate.dtype == dtype
    largest = max(g.abs().max() for g in torch.autograd.grad(estimate.surrogate.sum(), phi))
    assert (largest < tolerance) == zero
    marginal = math.sqrt(A**2 + S**2)
    log_evidence = -0.5 * ((X - B) / marginal) ** 2 - math.log(marginal) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(
        estimate.value, torch.full_like(estimate.value, log_evidence), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("place", PLACES)
def test_value_and_its_gradient_in_theta(place, monkeypatch):
    """E log N(x; az + b, s²) − KL, and ∂/∂b = (x − b − aμ)/s²."""
    weights = nodes(monkeypatch)
    theta = torch.tensor(B, dtype=torch.float64, requires_grad=True)
    estimate = StickingTheLanding()(gaussian(*leaves(place, len(weights))), linear_gaussian(theta), 1)
    assert estimate.value is estimate.surrogate
    mu, sigma = place
    residual = X - B - A * mu
    fit = -0.5 * (residual**2 + A**2 * sigma**2) / S**2 - math.log(S) - 0.5 * math.log(2 * math.pi)
    kl = 0.5 * (mu**2 + sigma**2 - 1) - math.log(sigma)
    value = weights @ estimate.value
    assert close(value.detach(), fit - kl)
    assert close(torch.autograd.grad(value, theta)[0], residual / S**2)


def test_without_a_prior_it_is_reparameterization():
    target = Target(lambda z: z.sin().sum(-1))
    found = []
    for name in ("sticking-the-landing", "reparameterization"):
        torch.manual_seed(0)
        loc = torch.zeros(5, 4, 3).requires_grad_()
        surrogate = create(name)(gaussian(loc, torch.full((5, 4, 3), 0.7)), target, 2).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), loc)[0])
    assert torch.equal(*found)


def test_a_gamma_posterior_equal_to_the_exact_one_has_no_variance():
    """x ~ Poisson(z), z ~ Gamma(3, 2): the posterior is Gamma(3 + x, 3); implicit reparameterization."""
    torch.manual_seed(0)
    x = 4.0

    def gamma(concentration, rate):
        return td.Independent(td.Gamma(concentration, rate), 1)

    phi = tuple(torch.full((1000, 1), v, dtype=torch.float64).requires_grad_() for v in (3 + x, 3.0))
    one = torch.ones(1, dtype=torch.float64)
    target = Target(lambda z: (x * z.log() - z - math.lgamma(x + 1)).sum(-1), gamma(3 * one, 2 * one))
    for estimator, zero in ((StickingTheLanding(), True), (ScoreNotCut(), False)):
        surrogate = estimator(gamma(*phi), target, 1).surrogate
        largest = max(g.abs().max() for g in torch.autograd.grad(surrogate.sum(), phi))
        assert (largest < 1e-9) == zero


class Network(td.ExpTransform):
    """A transform that holds a module."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)


def test_what_cannot_be_cut_is_refused():
    flow = td.TransformedDistribution(td.Normal(torch.zeros(4, 2), 1.0), [td.AbsTransform(), Network()])
    answer = StickingTheLanding().supports(td.Independent(flow, 1), Target(lambda z: z.sum(-1)), 1)
    assert "the parameters of this flow are not known" in answer
