"""The importance-weighted bound in one dimension, K = 2, by tensor Gauss-Hermite quadrature.

log p(x, z) = −0.4 z² + 1.5 cos z + θ sin z + log N(z; 0, 1) is no Gaussian in z, so that no q makes the weights
constant. Under quadrature nothing is random.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.methods.iwae import IWAE
from elbograd.estimators.pieces.objective import integrand
from elbograd.estimators.posteriors import gaussians
from elbograd.estimators.testing.mean_test import studentize
from oracles import complex_step, hermite, iwae_bound_of_two, normal_log_density
from torch import distributions as td

THETA = 0.6
PLACES = [(0.5, 0.3), (-0.4, 1.2), (0.1, 0.8)]
NODES = 100


class MeanOfLogs(IWAE):
    """The ELBO averaged over K samples."""

    def bound(self, log_weights):
        return log_weights.mean(0)

    def forward(self, q, target, num_samples):
        z = gaussians.rsample(q, num_samples)
        bound = self.bound(integrand(q, target, z, "sampled", gaussians.log_prob(q, z)))
        return Estimate(bound, bound)


class SumOfWeights(MeanOfLogs):
    """1/K forgotten: the gradient is right, the value is not."""

    def bound(self, log_weights):
        return log_weights.logsumexp(0)


class UniformWeights(MeanOfLogs):
    """The mean of ∇ log w_k in place of Σ ŵ_k ∇ log w_k; the value is that of the bound."""

    def bound(self, log_weights):
        value = log_weights.logsumexp(0) - math.log(len(log_weights))
        return value.detach() + log_weights.mean(0) - log_weights.mean(0).detach()


class SquaredWeights(MeanOfLogs):
    """½ log of the mean of w²: another bound of the same family."""

    def bound(self, log_weights):
        return 0.5 * ((2 * log_weights).logsumexp(0) - math.log(len(log_weights)))


def gaussian(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def target_of(theta):
    zero = torch.zeros(1, dtype=torch.float64)

    def f(z):
        return (-0.4 * z.square() + 1.5 * z.cos() + theta * z.sin()).sum(-1)

    return Target(f, gaussian(zero, zero + 1))


def log_joint(z, theta=THETA):
    return -0.4 * z**2 + 1.5 * np.cos(z) + theta * np.sin(z) + normal_log_density(z, 0.0, 1.0)


def bound_and_gradient(mu, sigma, nodes=NODES):
    """L_2 and its derivatives in (μ, σ, θ): complex steps through the quadrature."""
    value = iwae_bound_of_two(log_joint, mu, sigma, nodes).real
    in_mu = complex_step(lambda m: iwae_bound_of_two(log_joint, m, sigma, nodes), mu)
    in_sigma = complex_step(lambda s: iwae_bound_of_two(log_joint, mu, s, nodes), sigma)
    in_theta = complex_step(lambda t: iwae_bound_of_two(lambda z: log_joint(z, t), mu, sigma, nodes), THETA)
    return np.array([value, in_mu, in_sigma, in_theta])


def expected(estimator, place, monkeypatch):
    """E of value and of the gradients in (μ, σ, θ) for K = 2, over the nodes of both samples' noise."""
    points, weights = (torch.as_tensor(v) for v in hermite(2, NODES))
    noise = points.T.unsqueeze(-1)
    with monkeypatch.context() as patch:
        patch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
        theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
        phi = [torch.full((len(weights), 1), v, dtype=torch.float64).requires_grad_() for v in place]
        estimate = estimator(gaussian(*phi), target_of(theta), 2)
        surrogate, value = weights @ estimate.surrogate, weights @ estimate.value
        in_phi = torch.autograd.grad(surrogate, phi, retain_graph=True)
        (in_theta,) = torch.autograd.grad(value, theta)
    return np.array([value.item(), *(g.sum().item() for g in in_phi), in_theta.item()])


@pytest.mark.parametrize("place", PLACES)
def test_the_quadrature_has_converged(place):
    np.testing.assert_allclose(bound_and_gradient(*place), bound_and_gradient(*place, 140), atol=2e-6)


@pytest.mark.parametrize("place", PLACES)
def test_mean_of_value_and_gradients(place, monkeypatch):
    np.testing.assert_allclose(
        expected(IWAE(), place, monkeypatch), bound_and_gradient(*place), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("wrong", [MeanOfLogs, SumOfWeights, UniformWeights, SquaredWeights])
@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_bound_is_seen(wrong, place, monkeypatch):
    difference = expected(wrong(), place, monkeypatch) - bound_and_gradient(*place)
    assert np.abs(difference).max() > 0.01


def test_random_draws_have_that_mean():
    """Unpatched, 200,000 estimates; a false alarm has probability 1e-6."""
    torch.manual_seed(0)
    place = PLACES[1]
    limit = NormalDist().inv_cdf(1 - 1e-6 / 6)
    worst = {}
    for estimator in (IWAE(), MeanOfLogs()):
        phi = [torch.full((200_000, 1), v, dtype=torch.float64).requires_grad_() for v in place]
        estimate = estimator(gaussian(*phi), target_of(THETA), 2)
        parts = torch.autograd.grad(estimate.surrogate.sum(), phi)
        draws = torch.cat((estimate.value.detach().unsqueeze(1), *parts), -1)
        transformed, g = studentize(draws - torch.as_tensor(bound_and_gradient(*place)[:3]))
        assert g.abs().max() < 0.1
        worst[type(estimator)] = float(transformed.abs().max())
    assert worst[IWAE] < limit < worst[MeanOfLogs]


def test_the_bound_rises_with_k_and_is_log_p_where_q_is_the_posterior():
    """x = 1 | z ~ N(z, 1), z ~ N(0, 1): p(z|x) = N(½, ½), p(x) = N(x; 0, 2)."""
    torch.manual_seed(0)
    zero = torch.zeros(1000, 1, dtype=torch.float64)
    prior = gaussian(zero[0], zero[0] + 1)
    target = Target(lambda z: td.Normal(z, 1.0).log_prob(z.new_tensor(1.0)).sum(-1), prior)
    log_evidence = -0.25 - 0.5 * math.log(4 * math.pi)
    for k in (1, 2, 7):
        value = IWAE()(gaussian(zero + 0.5, zero + math.sqrt(0.5)), target, k).value
        torch.testing.assert_close(value, torch.full_like(value, log_evidence), rtol=0, atol=1e-12)
    poor = gaussian(zero, zero + 1)
    # The means of 1000 values differ by many standard errors: 0.1 apart and more, with spreads below 0.03.
    means = [float(IWAE()(poor, target, k).value.mean()) for k in (1, 4, 64)]
    assert means[0] < means[1] < means[2] < log_evidence + 0.01


def test_one_sample_is_reparameterization_of_the_elbo():
    found = []
    for name in ("iwae", "reparameterization[kl=sampled]"):
        torch.manual_seed(0)
        loc = torch.zeros(5, 4, 1, dtype=torch.float64).requires_grad_()
        surrogate = create(name)(gaussian(loc, torch.full_like(loc, 0.7)), target_of(THETA), 1).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), loc)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (1,), (5, 4)])
def test_shape_and_dtype_where_weights_overflow(batch, dtype):
    """log w near 10³: exp(log w) has no float."""
    loc = torch.zeros(*batch, 3, dtype=dtype, requires_grad=True)
    prior = gaussian(torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype))
    target = Target(lambda z: 1000 + z.sum(-1), prior)
    estimate = IWAE()(gaussian(loc, torch.ones_like(loc)), target, 4)
    assert estimate.surrogate is estimate.value
    assert estimate.value.shape == batch
    assert estimate.value.dtype == dtype
    assert estimate.value.isfinite().all()
    assert torch.autograd.grad(estimate.surrogate.sum(), loc)[0].isfinite().all()
