"""The measure-valued gradient against closed forms and quadrature.

Statistical tests fix their seed and raise a false alarm with probability 1e-6 each (Hall's H, Bonferroni over
the columns compared).
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.methods import measure_valued
from elbograd.estimators.methods.measure_valued import MeasureValued
from elbograd.estimators.testing.mean_test import studentize
from oracles import MEASURE_VALUED_QUADRATIC, expectation, hermite, measure_valued_moments, score_function_eta
from torch import distributions as td

RATE = 1e-6
DRAWS = 50_000
POINTS = [(0.7, 0.3), (-1.1, 2.0), (0.4, 1.3)]
COSTS = {
    "quadratic": (lambda z: (z - 1.5) ** 2, lambda z: (z - 1.5).square()),
    "exponential": (lambda z: np.exp(-0.4 * z**2), lambda z: torch.exp(-0.4 * z.square())),
    "cosine": (lambda z: np.cos(1.2 * z), lambda z: torch.cos(1.2 * z)),
}


class MissingScale(MeasureValued):
    """1/√(2π) in place of 1/(σ√(2π)): the gradient in μ is σ times too large."""

    def forward(self, q, target, num_samples):
        loc, scale = q.base_dist.loc, q.base_dist.scale
        stretched = loc.detach() + scale.detach() * (loc - loc.detach())
        return super().forward(gaussian(stretched, scale), target, num_samples)


class RayleighForMaxwell(MeasureValued):
    def _noise(self, normal):
        noise = super()._noise(normal)
        return torch.stack((noise[0], noise[1], torch.copysign(noise[0], normal)))


class OneSidedMaxwell(MeasureValued):
    def _noise(self, normal):
        noise = super()._noise(normal)
        return torch.stack((noise[0], noise[1], noise[2].abs()))


class OneSampleForAll(MeasureValued):
    """The sum over samples in place of the mean."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(surrogate=num_samples * estimate.surrogate)


def gaussian(loc, scale, events=1):
    return td.Independent(td.Normal(loc, scale, validate_args=False), events, validate_args=False)


def gradients(estimator, cost, mu, sigma, num_samples=1, n=DRAWS):
    """n one-datum gradients in (μ, σ), (n, 2D), of E cost(z), cost (..., D) -> (...)."""
    torch.manual_seed(0)
    mu, sigma = (torch.as_tensor(v, dtype=torch.float64).expand(n, -1) for v in (mu, sigma))
    leaves = mu.clone().requires_grad_(), sigma.clone().requires_grad_()
    estimate = estimator(gaussian(*leaves), Target(cost), num_samples)
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), leaves), -1)


def assert_moments(draws, mean, second):
    """The draws' mean is ``mean`` and their second moment ``second``, each (columns,).

    Raises:
        ValueError: no verdict.
    """
    mean, second = torch.as_tensor(mean), torch.as_tensor(second)
    columns = torch.cat((draws - mean, draws.square() - second), -1)
    transformed, g = studentize(columns)
    if g.abs().max() > 0.1:
        raise ValueError("too skewed for a verdict")
    assert transformed.abs().max() < NormalDist().inv_cdf(1 - RATE / (2 * columns.shape[1]))


def one_dimensional(name):
    return lambda z: COSTS[name][1](z).sum(-1)


# --- The oracle ---


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_quadrature_gives_the_closed_form_variances_of_the_quadratic(mu, sigma, coupled):
    mean, second = measure_valued_moments(COSTS["quadratic"][0], mu, sigma, coupled)
    np.testing.assert_allclose(mean, [2 * (mu - 1.5), 2 * sigma], rtol=1e-11)
    np.testing.assert_allclose(
        second - mean**2, MEASURE_VALUED_QUADRATIC[coupled](mu - 1.5, sigma), rtol=1e-11
    )


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_quadrature_of_both_parts_is_that_of_the_score(mu, sigma, cost, coupled):
    f = COSTS[cost][0]
    score = score_function_eta(lambda z: f(z[:, 0]), np.array([mu]), np.array([sigma]))
    exact = expectation(score, 1, 150)[0] / [1, sigma]  # from log σ to σ
    np.testing.assert_allclose(measure_valued_moments(f, mu, sigma, coupled)[0], exact, rtol=1e-9)


# --- Mean and variance ---


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_mean_and_variance_in_one_dimension(mu, sigma, cost, coupled):
    draws = gradients(MeasureValued(coupled=coupled), one_dimensional(cost), [mu], [sigma])
    assert_moments(draws, *measure_valued_moments(COSTS[cost][0], mu, sigma, coupled))


@pytest.mark.parametrize("wrong", [MissingScale, RayleighForMaxwell, OneSidedMaxwell])
@pytest.mark.parametrize("cost", COSTS)
def test_a_wrong_part_or_constant_is_seen(wrong, cost):
    moments = measure_valued_moments(COSTS[cost][0], 0.7, 0.3, True)
    draws = gradients(wrong(), one_dimensional(cost), [0.7], [0.3])
    with pytest.raises(AssertionError):
        assert_moments(draws, *moments)


@pytest.mark.parametrize("cost", COSTS)
def test_coupling_is_told_from_none_by_the_variance(cost):
    draws = gradients(MeasureValued(coupled=False), one_dimensional(cost), [0.7], [0.3])
    with pytest.raises(AssertionError):
        assert_moments(draws, *measure_valued_moments(COSTS[cost][0], 0.7, 0.3, True))


@pytest.mark.parametrize(("estimator", "holds"), [(MeasureValued, True), (OneSampleForAll, False)])
def test_samples_are_averaged(estimator, holds):
    mean, second = measure_valued_moments(COSTS["cosine"][0], 0.4, 1.3, True)
    draws = gradients(estimator(), one_dimensional("cosine"), [0.4], [1.3], num_samples=3)
    moments = mean, (second - mean**2) / 3 + mean**2
    if holds:
        assert_moments(draws, *moments)
    else:
        with pytest.raises(AssertionError):
            assert_moments(draws, *moments)


# --- Several dimensions ---

MU, SIGMA = np.array([0.5, -0.8]), np.array([0.3, 2.0])


def waves(z, sin):
    return sin(1.1 * z[..., 0] - 0.6 * z[..., 1] + 0.4) + 0.5 * z[..., 0] * z[..., 1]


@cache
def two_dimensional_moments(coupled):
    """E h and E h² for f = waves: conditional on the coordinate that both parts share, then averaged over it."""
    points, weights = hermite(1, 40)
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    for j in range(2):
        for eps, weight in zip(points[:, 0], weights, strict=True):
            other = MU[1 - j] + SIGMA[1 - j] * eps

            def f(z, j=j, other=other):
                pair = (z, np.full_like(z, other))
                return waves(np.stack(pair if j == 0 else pair[::-1], -1), np.sin)

            mean, square = measure_valued_moments(f, MU[j], SIGMA[j], coupled)
            first[:, j] += weight * mean
            second[:, j] += weight * square
    return first.ravel(), second.ravel()


@pytest.mark.parametrize("coupled", [True, False])
def test_mean_and_variance_in_two_dimensions(coupled):
    draws = gradients(MeasureValued(coupled=coupled), lambda z: waves(z, torch.sin), MU, SIGMA)
    assert_moments(draws, *two_dimensional_moments(coupled))


def test_other_coordinates_not_shared_by_the_two_parts_are_seen(monkeypatch):
    replace = measure_valued._replace_each
    mu, sigma = torch.as_tensor(MU), torch.as_tensor(SIGMA)

    def redrawn(z, moved, dims):
        return torch.stack([replace(mu + sigma * torch.randn_like(z), moved, dims)[i] for i in range(3)])

    monkeypatch.setattr(measure_valued, "_replace_each", redrawn)
    draws = gradients(MeasureValued(), lambda z: waves(z, torch.sin), MU, SIGMA)
    with pytest.raises(AssertionError):
        assert_moments(draws, *two_dimensional_moments(True))


def test_a_coordinate_alone_moves_and_each_has_its_own_factor():
    """f = Σ a_j z_j of a matrix-shaped event: ∂σ has mean 0, and ∂μ_j = a_j 2 W_j/√(2π), free of the others."""
    a = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.25]], dtype=torch.float64)
    loc = torch.randn(5, 4, 3, 2, dtype=torch.float64).requires_grad_()
    q = gaussian(loc, torch.full_like(loc, 0.6), 2)
    surrogate = MeasureValued()(q, Target(lambda z: (a * z).sum((-1, -2))), 7).surrogate
    assert surrogate.shape == (5, 4)
    (gradient,) = torch.autograd.grad(surrogate.sum(), loc)
    rayleigh = gradient / a * np.sqrt(2 * np.pi) / 2
    assert rayleigh.min() > 0  # of the sign of a_j, whatever the noise of the others
    assert rayleigh.flatten(0, 1).std(0).min() > 0


# --- What surrounds it ---


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("coupled", [True, False])
def test_mean_of_the_elbo_gradient_by_quadrature(kl, coupled):
    """f = cos(1.2 z), prior N(0, 1); the mean only, as the sampled KL changes the variance."""
    mu, sigma = 0.4, 1.3
    torch.manual_seed(1)
    leaves = tuple(torch.full((DRAWS, 1), v, dtype=torch.float64).requires_grad_() for v in (mu, sigma))
    zero = torch.zeros(1, dtype=torch.float64)
    target = Target(one_dimensional("cosine"), prior=gaussian(zero, zero + 1))
    surrogate = MeasureValued(coupled=coupled, kl=kl)(gaussian(*leaves), target, 1).surrogate
    draws = torch.cat(torch.autograd.grad(surrogate.sum(), leaves), -1)
    kl_gradient = np.array([mu, sigma - 1 / sigma])
    exact = measure_valued_moments(COSTS["cosine"][0], mu, sigma, coupled)[0] - kl_gradient
    transformed, _ = studentize(draws - torch.as_tensor(exact))
    assert transformed.abs().max() < NormalDist().inv_cdf(1 - RATE / 4)
    without, _ = studentize(draws - torch.as_tensor(exact + kl_gradient))
    assert without.abs().max() > NormalDist().inv_cdf(1 - RATE / 4)


def test_the_sample_and_its_value_are_those_of_the_score_function_under_one_seed():
    q = gaussian(torch.zeros(4, 3), torch.full((4, 3), 0.7))
    target = Target(lambda z: z.sin().sum(-1), prior=gaussian(torch.zeros(3), torch.ones(3)))
    values = []
    for name in ("measure-valued", "score-function"):
        torch.manual_seed(2)
        values.append(create(name)(q, target, 5).value)
    torch.testing.assert_close(*values)
