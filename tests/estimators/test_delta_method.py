"""The delta-method control variate: no variance on quadratics, quadrature elsewhere.

Statistical tests fix their seed and raise a false alarm with probability 1e-6 each (Hall's H, Bonferroni over
the columns compared).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods import delta_method
from elbograd.estimators.methods.delta_method import DeltaMethod, _Taylor
from elbograd.estimators.testing.mean_test import studentize
from oracles import expectation, hermite, score_function_eta
from torch import distributions as td

RATE = 1e-6
DRAWS, SAMPLES = 8_000, 100  # the square of a mean of many samples is not too skewed for a verdict

#: cost k z -> (f, f', f'') in NumPy, f in torch.
COSTS = {
    "cosine": (
        lambda z: np.cos(1.2 * z),
        lambda z: -1.2 * np.sin(1.2 * z),
        lambda z: -1.44 * np.cos(1.2 * z),
        lambda z: torch.cos(1.2 * z),
    ),
    "exponential": (
        lambda z: np.exp(-0.8 * z**2),
        lambda z: -1.6 * z * np.exp(-0.8 * z**2),
        lambda z: (2.56 * z**2 - 1.6) * np.exp(-0.8 * z**2),
        lambda z: torch.exp(-0.8 * z.square()),
    ),
}


class NothingAddedBack(DeltaMethod):
    """E_q[h] forgotten."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        loc, scale = q.base_dist.loc, q.base_dist.scale
        taylor = expand(q, target)
        return estimate._replace(surrogate=estimate.surrogate - taylor.expectation(gaussian(loc, scale)))


class HalfForgotten(DeltaMethod):
    """∂_σ E_q[h] twice as large: (z − m)ᵀ H (z − m) for half of it."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        curved = expand(q, target)._replace(slope=torch.zeros_like(q.mean.detach()))
        return estimate._replace(surrogate=estimate.surrogate + curved.expectation(q))


class SameSamples(DeltaMethod):
    """The coefficients fitted on the samples that they serve."""

    def forward(self, q, target, num_samples):
        state = torch.get_rng_state()
        coefficients = super()._coefficients(q, target, expand(q, target))
        torch.set_rng_state(state)
        self._coefficients = lambda *_: coefficients
        return super().forward(q, target, num_samples)


def expand(q, target):
    from elbograd.estimators.methods.delta_method import _expand
    from elbograd.estimators.posteriors.distributions import cut

    return _expand(cut(q), target, "analytic")


def gaussian(loc, scale, events=1):
    return td.Independent(td.Normal(loc, scale, validate_args=False), events, validate_args=False)


def gradients(estimator, cost, mu, sigma, num_samples=SAMPLES, n=DRAWS):
    """n one-datum gradients in (μ, log σ), (n, 2D), of E cost(z), cost (..., D) -> (...)."""
    torch.manual_seed(0)
    mu, log_sigma = (torch.as_tensor(v, dtype=torch.float64).expand(n, -1) for v in (mu, np.log(sigma)))
    leaves = mu.clone().requires_grad_(), log_sigma.clone().requires_grad_()
    estimate = estimator(gaussian(leaves[0], leaves[1].exp()), Target(cost), num_samples)
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), leaves), -1)


def deviates(columns):
    """Whether the columns' means differ from zero.

    Raises:
        ValueError: no verdict.
    """
    transformed, g = studentize(columns)
    if g.abs().max() > 0.2:
        raise ValueError("too skewed for a verdict")
    return bool(transformed.abs().max() > NormalDist().inv_cdf(1 - RATE / (2 * columns.shape[1])))


def moments_deviate(draws, mean, variance):
    """Whether draws of a mean of SAMPLES samples contradict the mean and variance of one sample."""
    mean, variance = torch.as_tensor(mean), torch.as_tensor(variance.copy())
    return deviates(torch.cat((draws - mean, (draws - mean).square() - variance / SAMPLES), -1))


def at_nodes(monkeypatch, q, leaves, cost, points, weights):
    """Exact mean and variance of one-sample gradients: node i of the quadrature is what entry i of q draws."""
    monkeypatch.setattr(delta_method, "draw", lambda *_: (torch.as_tensor(points).unsqueeze(0), None))
    found = torch.autograd.grad(DeltaMethod()(q, Target(cost), 1).surrogate.sum(), leaves)
    draws = torch.cat([part.flatten(1) for part in found], 1).numpy()
    mean = weights @ draws
    return mean, weights @ (draws - mean) ** 2


def repeated(value, n):
    return torch.as_tensor(value).expand(n, *np.shape(value)).clone().requires_grad_()


def one_dimensional(name):
    return lambda z: COSTS[name][3](z).sum(-1)


def parts(name, mu, sigma):
    """Mean and covariance (4, 4) of a and b, in (μ, log σ) each: (f − f(m)) and (h − f(m)) times the score."""
    f, slope, curvature = (part(np.array(mu)) for part in COSTS[name][:3])

    def h(z):
        return slope * (z[:, 0] - mu) + 0.5 * curvature * (z[:, 0] - mu) ** 2

    def both(eps):
        a, b = (
            score_function_eta(part, np.array([mu]), np.array([sigma]))(eps)
            for part in (lambda z: COSTS[name][0](z[:, 0]) - f, h)
        )
        return np.concatenate([a, b], 1)

    return expectation(both, 1, 150)


# --- Quadratic costs: no variance ---

MATRIX = torch.tensor([[1.0, 0.4, -0.7], [0.4, -2.0, 0.3], [-0.7, 0.3, 0.5]], dtype=torch.float64)
SLOPE = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def quadratic(z):
    return 3.0 + z @ SLOPE + 0.5 * ((z @ MATRIX) * z).sum(-1)


@pytest.mark.parametrize("pilot", [None, 12])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_quadratic_has_no_variance_under_a_diagonal_gaussian(num_samples, pilot):
    torch.manual_seed(0)
    loc = torch.randn(6, 4, 3, dtype=torch.float64).requires_grad_()
    scale = torch.rand(6, 4, 3, dtype=torch.float64).add(0.2).requires_grad_()
    estimate = DeltaMethod(pilot)(gaussian(loc, scale), Target(quadratic), num_samples)
    found = torch.autograd.grad(estimate.surrogate.sum(), (loc, scale))
    torch.testing.assert_close(found[0], (SLOPE + loc @ MATRIX).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[1], (scale * MATRIX.diagonal()).detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pilot", [None, 12])
def test_a_quadratic_has_no_variance_under_a_full_covariance(pilot):
    torch.manual_seed(0)
    loc = torch.randn(6, 4, 3, dtype=torch.float64).requires_grad_()
    factor = torch.randn(6, 4, 3, 3, dtype=torch.float64).tril(-1) + 0.7 * torch.eye(3, dtype=torch.float64)
    factor.requires_grad_()
    q = td.MultivariateNormal(loc, scale_tril=factor)
    estimate = DeltaMethod(pilot)(q, Target(quadratic), 2)
    found = torch.autograd.grad(estimate.surrogate.sum(), (loc, factor))
    torch.testing.assert_close(found[0], (SLOPE + loc @ MATRIX).detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], (MATRIX @ factor).tril().detach(), rtol=1e-9, atol=1e-9)


def test_a_sampled_kl_against_a_gaussian_prior_is_quadratic_too():
    torch.manual_seed(0)
    loc = torch.randn(50, 4, 3, dtype=torch.float64).requires_grad_()
    scale = torch.rand(50, 4, 3, dtype=torch.float64).add(0.2).requires_grad_()
    prior = gaussian(torch.zeros(3, dtype=torch.float64), torch.full((3,), 1.7, dtype=torch.float64))
    found = []
    for kl in ("analytic", "sampled"):
        estimate = DeltaMethod(kl=kl)(gaussian(loc, scale), Target(quadratic, prior), 1)
        found.append(torch.cat(torch.autograd.grad(estimate.surrogate.sum(), (loc, scale))))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cost", [lambda z: 2.0 * z.sum(-1), lambda z: z.new_zeros(z.shape[:-1])])
def test_a_cost_without_a_second_or_a_first_derivative_in_z(cost):
    draws = gradients(DeltaMethod(), cost, [0.7, -0.3], [0.3, 2.0], n=5)
    expected = torch.autograd.functional.jacobian(cost, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(draws, torch.cat((expected, torch.zeros(2))).double().expand(5, 4))


# --- Variance by quadrature ---


def least_and_fixed(mean, covariance):
    """From `parts`: E â, the variance with coefficients of 1, and the least one."""
    a, b, ab = np.diag(covariance)[:2], np.diag(covariance)[2:], np.diag(covariance[:2, 2:])
    return mean[:2], a - 2 * ab + b, a - ab**2 / b


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("mu", "sigma"), [(0.7, 0.3), (-1.1, 0.6), (0.4, 2.0)])
def test_mean_and_variance_are_those_of_the_formula(mu, sigma, cost, monkeypatch):
    mean, variance, _ = least_and_fixed(*parts(cost, mu, sigma))
    points, weights = hermite(1, 150)
    loc, log_scale = repeated(np.array([mu]), 150), repeated(np.log([sigma]), 150)
    q = gaussian(loc, log_scale.exp())
    found = at_nodes(monkeypatch, q, (loc, log_scale), one_dimensional(cost), mu + sigma * points, weights)
    np.testing.assert_allclose(found, (mean, variance), rtol=1e-8)


@pytest.mark.parametrize("cost", COSTS)
def test_mean_and_variance_as_measured(cost):
    mean, variance, _ = least_and_fixed(*parts(cost, 0.7, 0.8))
    draws = gradients(DeltaMethod(), one_dimensional(cost), [0.7], [0.8])
    assert not moments_deviate(draws, mean, variance)
    plain = gradients(create("score-function"), one_dimensional(cost), [0.7], [0.8])
    assert moments_deviate(plain, mean, variance)


@pytest.mark.parametrize("cost", COSTS)
def test_estimated_coefficients_reach_the_least_variance(cost):
    """At σ = 1.2 the coefficients of h are far from 1; 200 pilot samples add up to 5% to the variance."""
    mu, sigma = 0.7, 1.2
    mean, fixed, least = least_and_fixed(*parts(cost, mu, sigma))
    assert (fixed > 1.3 * least).all()
    draws = gradients(DeltaMethod(200), one_dimensional(cost), [mu], [sigma], 4, n=20_000)
    squares, least = 4 * (draws - torch.as_tensor(mean)).square(), torch.as_tensor(least)
    error = squares.std(0) / math.sqrt(len(draws))
    assert (squares.mean(0) - least > -5 * error).all()  # 5 standard errors: 1e-6 a coordinate
    assert (squares.mean(0) < 1.05 * least + 5 * error).all()


@pytest.mark.parametrize("pilot", [5, 40])
def test_estimated_coefficients_leave_the_mean_alone(pilot):
    mean, _ = parts("cosine", 0.7, 0.6)
    draws = gradients(DeltaMethod(pilot), one_dimensional("cosine"), [0.7], [0.6], 2, n=50_000)
    assert not deviates(draws - torch.as_tensor(mean[:2]))


def test_coefficients_fitted_on_the_samples_they_serve_are_seen():
    mean, _ = parts("exponential", 0.7, 1.2)
    draws = gradients(SameSamples(5), one_dimensional("exponential"), [0.7], [1.2], 5, n=50_000)
    assert deviates(draws - torch.as_tensor(mean[:2]))


@pytest.mark.parametrize("wrong", [NothingAddedBack, HalfForgotten])
def test_a_wrong_expectation_is_seen(wrong):
    mean, _ = parts("cosine", 0.7, 0.6)
    draws = gradients(wrong(), one_dimensional("cosine"), [0.7], [0.6], 4)
    assert deviates(draws - torch.as_tensor(mean[:2]))


def test_a_cost_with_kinks_is_integrated_without_bias():
    """E|z|: h is a line through the mean's side of the kink, and H = 0."""
    mu, sigma = 0.2, 0.9
    draws = gradients(DeltaMethod(), lambda z: z.abs().sum(-1), [mu], [sigma], 4)
    normal = NormalDist()
    exact = [2 * normal.cdf(mu / sigma) - 1, 2 * sigma * normal.pdf(mu / sigma)]  # in μ and log σ
    assert not deviates(draws - torch.tensor(exact, dtype=torch.float64))


# --- Several dimensions ---

MU, SIGMA = np.array([0.5, -0.8]), np.array([0.3, 0.6])
WAVE = np.array([1.1, -0.6])


def expanded_wave(centre):
    """f − h at z (N, 2) for f = sin(w·z) about the centre, and the slope and Hessian of f there."""
    phase = WAVE @ centre
    slope, hessian = WAVE * np.cos(phase), -np.outer(WAVE, WAVE) * np.sin(phase)

    def rest(z):
        away = z - centre
        bent = 0.5 * np.einsum("nj,jk,nk->n", away, hessian, away)
        return np.sin(z @ WAVE) - np.sin(phase) - away @ slope - bent

    return rest, slope, hessian


def wave(z):
    return torch.sin(z @ torch.as_tensor(WAVE, dtype=z.dtype))


def two_dimensional(monkeypatch):
    """Mean and variance in (μ, log σ), by quadrature of the formula and of the estimator."""
    rest, slope, hessian = expanded_wave(MU)
    mean, covariance = expectation(score_function_eta(rest, MU, SIGMA), 2, 60)
    formula = mean + np.concatenate([slope, SIGMA**2 * np.diag(hessian)]), np.diag(covariance)
    points, weights = hermite(2, 60)
    loc, log_scale = repeated(MU, 3600), repeated(np.log(SIGMA), 3600)
    q = gaussian(loc, log_scale.exp())
    return formula, at_nodes(monkeypatch, q, (loc, log_scale), wave, MU + SIGMA * points, weights)


def test_mean_and_variance_in_two_dimensions(monkeypatch):
    formula, found = two_dimensional(monkeypatch)
    np.testing.assert_allclose(found, formula, rtol=1e-8)


def test_a_hessian_without_its_cross_terms_shows_in_the_variance(monkeypatch):
    def diagonal(self, z):
        away = z.reshape(len(z), *self.mean.shape) - self.mean
        curvature = self.hessian.diagonal(dim1=-2, dim2=-1)
        return (away * (self.slope + 0.5 * curvature * away)).sum(-1)

    monkeypatch.setattr(_Taylor, "__call__", diagonal)
    formula, found = two_dimensional(monkeypatch)
    np.testing.assert_allclose(found[0], formula[0], rtol=1e-8)
    assert (found[1] > 1.2 * formula[1]).all()


def test_mean_and_variance_under_a_full_covariance(monkeypatch):
    """In (μ, L): the scores are L⁻ᵀε and tril(L⁻ᵀ(ε εᵀ − I))."""
    factor = np.array([[0.5, 0.0], [-0.3, 0.4]])
    rest, slope, hessian = expanded_wave(MU)
    inverse = np.linalg.inv(factor).T

    def h(eps):
        score = np.tril(np.einsum("jk,nk,nl->njl", inverse, eps, eps) - inverse)
        return rest(MU + eps @ factor.T)[:, None] * np.concatenate(
            [eps @ inverse.T, score.reshape(-1, 4)], axis=1
        )

    mean, covariance = expectation(h, 2, 60)
    mean = mean + np.concatenate([slope, np.tril(hessian @ factor).ravel()])
    points, weights = hermite(2, 60)
    loc, tril = repeated(MU, 3600), repeated(factor, 3600)
    q = td.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
    found = at_nodes(monkeypatch, q, (loc, tril), wave, MU + points @ factor.T, weights)
    np.testing.assert_allclose(found, (mean, np.diag(covariance)), rtol=1e-8, atol=1e-12)


# --- What surrounds it ---


def test_too_small_a_pilot_is_refused():
    with pytest.raises(UsageError, match="pilot=3 is not an integer of 4 or more"):
        create("delta-method[pilot=3]")
