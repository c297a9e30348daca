"""The linearized-Hessian control variate: its formula draw by draw, its variance by quadrature, exact cases.

Under the nodes of a quadrature nothing is random; the one test that draws states its false-alarm rate.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.methods.linearized_hessian import LinearizedHessian
from elbograd.estimators.posteriors import gaussians
from elbograd.estimators.testing.mean_test import studentize
from oracles import QUADRATIC, expectation, hermite
from torch import distributions as td

NODES = 150
POINTS = [(0.7, 0.3), (-1.1, 2.0), (0.4, 1.3)]
# f in torch, and f, f', f'' by hand.
COSTS = {
    "quadratic": (
        lambda z: (z - 1.5).square(),
        (lambda z: (z - 1.5) ** 2, lambda z: 2 * (z - 1.5), lambda z: 2 + 0 * z),
    ),
    "exponential": (
        lambda z: torch.exp(-0.4 * z.square()),
        (
            lambda z: np.exp(-0.4 * z**2),
            lambda z: -0.8 * z * np.exp(-0.4 * z**2),
            lambda z: (0.64 * z**2 - 0.8) * np.exp(-0.4 * z**2),
        ),
    ),
    "cosine": (
        lambda z: torch.cos(1.2 * z),
        (
            lambda z: np.cos(1.2 * z),
            lambda z: -1.2 * np.sin(1.2 * z),
            lambda z: -1.44 * np.cos(1.2 * z),
        ),
    ),
}
A = np.array([[0.8, -0.5, 0.3], [-0.5, -1.1, 0.6], [0.3, 0.6, 1.7]])
SLOPE = np.array([0.4, -1.2, 0.7])
MU, SIGMA = np.array([0.5, -0.8, 1.3]), np.array([0.3, 2.0, 0.9])
LOWER = np.array([[0.7, 0.0, 0.0], [-0.4, 1.2, 0.0], [0.3, 0.5, 0.6]])


class NotAddedBack(LinearizedHessian):
    """The expectation of the scale's linearization is forgotten."""

    def _with_columns(self, q, target, z):
        control = super()._with_columns(q, target, z)
        _, curvature = self._derivatives(q, target, q.mean[None], torch.ones_like(q.mean)[None])
        return control + 0.5 * (curvature[0] * q.variance).sum(-1)


class AddedTwice(LinearizedHessian):
    """2 ∇E f̂ in place of ∇E f̂: the wrong constant in front of diag(H) σ."""

    def _with_columns(self, q, target, z):
        control = super()._with_columns(q, target, z)
        _, curvature = self._derivatives(q, target, q.mean[None], torch.ones_like(q.mean)[None])
        return control - 0.5 * (curvature[0] * q.variance).sum(-1)


class SlopeOfTheSample(LinearizedHessian):
    """∇f(z) for ∇f(μ) in the scale, whose product with ε has an expectation."""

    def _with_product(self, q, target, z):
        slope, _ = self._derivatives(q, target, z, torch.zeros_like(z))
        return (slope * (z - q.mean)).sum(-1).mean(0)


class ReachesTheta(LinearizedHessian):
    """The control variate stays attached to θ."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        leak = target.log_likelihood(q.mean.detach()[None])[0]
        value = estimate.value + leak - leak.detach()
        return Estimate(value, value)


def gaussian(loc, scale, events=1):
    return td.Independent(td.Normal(loc, scale, validate_args=False), events, validate_args=False)


def leaves(*values, batch):
    return [torch.as_tensor(v, dtype=torch.float64).expand(*batch, *np.shape(v)).clone() for v in values]


def draws_at(estimator, f, places, noise, monkeypatch, target=None):
    """Gradients in (μ, σ), (N, 2D), one a column of noise (S, N, D)."""
    with monkeypatch.context() as patch:
        patch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
        phi = [leaf.requires_grad_() for leaf in leaves(*places, batch=noise.shape[1:2])]
        estimate = estimator(gaussian(*phi), target or Target(f), len(noise))
        return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), phi), -1).numpy()


def by_hand(cost, mu, sigma, hessian):
    """h(ε) of one sample in (μ, σ)."""
    _, (_, first, second) = COSTS[cost]

    def h(eps):
        slope = first(mu + sigma * eps)
        in_mu = slope - second(mu) * sigma * eps
        if hessian == "hvp":
            return np.concatenate([in_mu, (slope - first(mu)) * eps], 1)
        linear = first(mu) + second(mu) * sigma * eps
        return np.concatenate([in_mu, (slope - linear) * eps + second(mu) * sigma], 1)

    return h


def one_dimensional(cost):
    return lambda z: COSTS[cost][0](z).sum(-1)


def exact_gradient(cost, mu, sigma):
    """E f'(z) and E f'(z) ε."""
    first = COSTS[cost][1][1]
    return expectation(
        lambda e: np.concatenate([first(mu + sigma * e), first(mu + sigma * e) * e], 1), 1, NODES
    )[0]


@pytest.mark.parametrize("hessian", ["hvp", "full"])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_every_draw_mean_and_variance_in_one_dimension(mu, sigma, cost, hessian, monkeypatch):
    points, weights = hermite(1, NODES)
    draws = draws_at(
        LinearizedHessian(hessian),
        one_dimensional(cost),
        ([mu], [sigma]),
        torch.as_tensor(points)[None],
        monkeypatch,
    )
    np.testing.assert_allclose(draws, by_hand(cost, mu, sigma, hessian)(points), atol=1e-11)
    np.testing.assert_allclose(weights @ draws, exact_gradient(cost, mu, sigma), atol=1e-12)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_closed_form_variances_of_the_quadratic(mu, sigma):
    """hvp: (0, 8σ²); full: none; reparameterization (4σ², 4d² + 8σ²), which the first row of the oracle knows."""
    products = expectation(by_hand("quadratic", mu, sigma, "hvp"), 1, NODES)[1]
    np.testing.assert_allclose(products, np.diag([0, 8 * sigma**2]), atol=1e-10)
    full = expectation(by_hand("quadratic", mu, sigma, "full"), 1, NODES)[1]
    np.testing.assert_allclose(full, 0, atol=1e-10)
    assert QUADRATIC["reparameterization"](mu - 1.5, sigma)[1] > 8 * sigma**2


@pytest.mark.parametrize(
    ("wrong", "hessian"), [(NotAddedBack, "full"), (AddedTwice, "full"), (SlopeOfTheSample, "hvp")]
)
@pytest.mark.parametrize("cost", COSTS)
def test_a_wrong_control_variate_is_seen_in_the_mean(wrong, hessian, cost, monkeypatch):
    points, weights = hermite(1, NODES)
    noise = torch.as_tensor(points)[None]
    draws = draws_at(wrong(hessian), one_dimensional(cost), ([0.4], [1.3]), noise, monkeypatch)
    assert np.abs(weights @ draws - exact_gradient(cost, 0.4, 1.3)).max() > 0.1


@pytest.mark.parametrize("hessian", ["hvp", "full"])
def test_drawn_moments(hessian):
    """200,000 estimates of cosine, S = 3: mean and variance of the quadrature; false alarm 1e-6 (Hall's H)."""
    torch.manual_seed(0)
    phi = [leaf.requires_grad_() for leaf in leaves([0.4], [1.3], batch=(200_000,))]
    surrogate = LinearizedHessian(hessian)(gaussian(*phi), Target(one_dimensional("cosine")), 3).surrogate
    draws = torch.cat(torch.autograd.grad(surrogate.sum(), phi), -1)
    mean, covariance = expectation(by_hand("cosine", 0.4, 1.3, hessian), 1, NODES)
    limit = NormalDist().inv_cdf(1 - 1e-6 / 8)
    for samples, holds in ((3, True), (1, False)):
        second = torch.as_tensor(mean**2 + np.diag(covariance) / samples)
        transformed, g = studentize(torch.cat((draws - torch.as_tensor(mean), draws.square() - second), -1))
        assert g.abs().max() < 0.1
        assert (float(transformed.abs().max()) < limit) == holds


def test_the_papers_leave_one_out_comes_to_the_same(monkeypatch):
    """HVP+Local for S = 4 and D = 2, term by term, f = sin(a·z + 0.4) + ½ z₁z₂."""
    a, mu, sigma = np.array([1.1, -0.6]), MU[:2], SIGMA[:2]
    swap = np.array([[0, 0.5], [0.5, 0]])
    rng = np.random.default_rng(0)
    eps = rng.standard_normal((4, 5, 2))
    z = mu + sigma * eps

    def gradient(z):
        return np.cos(z @ a + 0.4)[..., None] * a + z @ swap

    hessian = -np.sin(mu @ a + 0.4) * np.outer(a, a) + swap
    products = (sigma * eps) @ hessian
    local = (products * eps).sum(0) - products * eps  # of the other three
    in_mu = gradient(z) - products
    in_sigma = gradient(z) * eps - (gradient(mu) + products) * eps + local / 3
    expected = np.concatenate([in_mu.mean(0), in_sigma.mean(0)], 1)

    def f(z):
        return torch.sin(z @ torch.as_tensor(a) + 0.4) + 0.5 * z[..., 0] * z[..., 1]

    found = draws_at(LinearizedHessian(), f, (mu, sigma), torch.as_tensor(eps), monkeypatch)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    apart = np.concatenate([in_mu.mean(0), (gradient(z) * eps).mean(0)], 1)
    assert np.abs(found - apart).max() > 0.1  # without any control variate in the scale


def quadratic(z):
    return z @ torch.as_tensor(SLOPE) - 0.5 * ((z @ torch.as_tensor(A)) * z).sum(-1)


def test_no_variance_where_f_is_quadratic():
    """f = bᵀz − ½ zᵀAz: ∂μ = b − Aμ, ∂σ = −diag(A) σ."""
    torch.manual_seed(0)
    for hessian in ("hvp", "full"):
        phi = [leaf.requires_grad_() for leaf in leaves(MU, SIGMA, batch=(5, 4))]
        surrogate = LinearizedHessian(hessian)(gaussian(*phi), Target(quadratic), 2).surrogate
        in_mu, in_sigma = torch.autograd.grad(surrogate.sum(), phi)
        np.testing.assert_allclose(in_mu, np.broadcast_to(SLOPE - A @ MU, (5, 4, 3)), atol=1e-12)
        exact = np.broadcast_to(-np.diag(A) * SIGMA, (5, 4, 3))
        assert np.allclose(in_sigma, exact, atol=1e-12) == (hessian == "full")


@pytest.mark.parametrize("hessian", ["hvp", "full"])
def test_full_covariance(hessian):
    """∂L = −tril(A L) without noise, from H; with one product the mean alone has none."""
    torch.manual_seed(0)
    phi = [leaf.requires_grad_() for leaf in leaves(MU, LOWER, batch=(6,))]
    q = td.MultivariateNormal(phi[0], scale_tril=phi[1])
    surrogate = LinearizedHessian(hessian)(q, Target(quadratic), 1).surrogate
    in_mu, in_lower = torch.autograd.grad(surrogate.sum(), phi)
    np.testing.assert_allclose(in_mu, np.broadcast_to(SLOPE - A @ MU, (6, 3)), atol=1e-12)
    exact = np.broadcast_to(np.tril(-A @ LOWER), (6, 3, 3))
    assert np.allclose(in_lower.tril(), exact, atol=1e-12) == (hessian == "full")


def test_a_posterior_that_is_no_gaussian():
    """Gamma(a, b), f = z² − z: E f = (a + a²)/b² − a/b; its derivatives, without noise."""
    torch.manual_seed(0)
    phi = [leaf.requires_grad_() for leaf in leaves([2.3], [0.8], batch=(6,))]
    q = td.Independent(td.Gamma(*phi), 1)
    target = Target(lambda z: (z.square() - z).sum(-1))
    surrogate = LinearizedHessian("full")(q, target, 1).surrogate
    found = torch.cat(torch.autograd.grad(surrogate.sum(), phi), -1)
    a, b = 2.3, 0.8
    exact = [(1 + 2 * a) / b**2 - 1 / b, -2 * (a + a**2) / b**3 + a / b**2]
    np.testing.assert_allclose(
        found, np.broadcast_to(exact, (6, 2)), rtol=1e-5
    )  # torch's implicit derivative


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_the_elbo_of_a_quadratic_without_noise(kl):
    """Prior N(0, I): −KL has the gradient (−μ, 1/σ − σ); sampled, log p(z) is linearized and log q has no noise."""
    torch.manual_seed(0)
    phi = [leaf.requires_grad_() for leaf in leaves(MU, SIGMA, batch=(6,))]
    zero = torch.zeros(3, dtype=torch.float64)
    target = Target(quadratic, prior=gaussian(zero, zero + 1))
    surrogate = LinearizedHessian("full", kl=kl)(gaussian(*phi), target, 1).surrogate
    found = torch.cat(torch.autograd.grad(surrogate.sum(), phi), -1)
    exact = np.concatenate([SLOPE - A @ MU - MU, -np.diag(A) * SIGMA + 1 / SIGMA - SIGMA])
    np.testing.assert_allclose(found, np.broadcast_to(exact, (6, 6)), atol=1e-11)


@pytest.mark.parametrize("hessian", ["hvp", "full"])
def test_theta_gradient_is_that_of_reparameterization_under_one_seed(hessian):
    found = []
    for estimator in (LinearizedHessian(hessian), create("reparameterization"), ReachesTheta(hessian)):
        torch.manual_seed(1)
        theta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        q = gaussian(*leaves(MU, SIGMA, batch=(4,)))
        target = Target(lambda z, theta=theta: torch.sin(theta * z).sum(-1))
        estimate = estimator(q, target, 3)
        assert estimate.surrogate is estimate.value
        found.append(torch.autograd.grad(estimate.value.sum(), theta)[0])
    torch.testing.assert_close(found[0], found[1])
    assert not torch.isclose(found[2], found[1])


@pytest.mark.parametrize("hessian", ["hvp", "full"])
@pytest.mark.parametrize(
    "f", [lambda z: 3 * z.sum(-1), lambda z: z.new_ones(z.shape[:-1]), lambda z: z.relu().sum(-1)]
)
def test_functions_without_a_second_derivative(f, hessian):
    loc = torch.full((4, 2), 0.3, requires_grad=True)
    zero = torch.zeros(2)
    target = Target(f, prior=gaussian(zero, zero + 1))
    surrogate = LinearizedHessian(hessian)(gaussian(loc, torch.ones_like(loc)), target, 2).surrogate
    assert torch.autograd.grad(surrogate.sum(), loc)[0].isfinite().all()


def test_a_rough_cost_is_made_worse():
    """exp(−k z²), μ = 0.1, σ = 1: what the docstring warns of, in variance by quadrature."""
    k, mu, sigma = 20.0, 0.1, 1.0

    def slope(z):
        return -2 * k * z * np.exp(-k * z**2)

    bend = (4 * k**2 * mu**2 - 2 * k) * np.exp(-k * mu**2)

    def spread(h):
        return np.trace(expectation(h, 1, 250)[1])

    plain = spread(lambda e: slope(mu + sigma * e) * np.concatenate([e**0, e], 1))
    products = spread(
        lambda e: np.concatenate([slope(mu + e) - bend * e, (slope(mu + e) - slope(mu)) * e], 1)
    )
    full = spread(
        lambda e: np.concatenate([slope(mu + e) - bend * e, (slope(mu + e) - slope(mu) - bend * e) * e], 1)
    )
    assert 10 * plain < products < full


NORMAL = td.Normal(torch.zeros(4, 2), 1.0)


def test_what_is_supported_with_the_mean_alone():
    target = Target(lambda z: z.sum(-1))
    for q in (td.Dirichlet(torch.ones(4, 3)), td.Independent(td.StudentT(1.5 + torch.zeros(4, 2)), 1)):
        assert LinearizedHessian().supports(q, target, 1) is None
