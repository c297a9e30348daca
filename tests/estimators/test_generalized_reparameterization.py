"""The generalized reparameterization gradient: its two terms written out by hand, its mean by quadrature.

Statistical tests fix their seed and raise a false alarm with probability 1e-6 each (Hall's H, Bonferroni over
the columns compared).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.methods import generalized_reparameterization as module
from elbograd.estimators.methods.generalized_reparameterization import GeneralizedReparameterization
from elbograd.estimators.testing.mean_test import studentize
from oracles import legendre
from scipy import stats
from scipy.special import digamma, expit, logit, polygamma
from torch import distributions as td

RATE = 1e-6
DRAWS = 200_000
GAMMAS = [(0.7, 2.0), (2.5, 0.6), (30.0, 9.0)]
BETAS = [(0.8, 1.7), (3.0, 2.0), (20.0, 35.0)]


class NoCorrection(GeneralizedReparameterization):
    """The path alone, as if ε were free of φ."""

    def standardize(self, q, z):
        moved = super().standardize(q, z)
        return moved._replace(log_density=torch.zeros_like(moved.log_density))


class NoJacobian(GeneralizedReparameterization):
    """log q(z) at the moving z for log q_ε: log |∂T/∂ε| forgotten."""

    def standardize(self, q, z):
        moved = super().standardize(q, z)
        return moved._replace(log_density=q.base_dist.log_prob(moved.z))


class WholeScore(GeneralizedReparameterization):
    """∇ log q(z) at a fixed z on top of the path: both gradients, added."""

    def standardize(self, q, z):
        return super().standardize(q, z)._replace(log_density=q.base_dist.log_prob(z))


def f(z):
    """The cost: neither even nor polynomial, and with a constant part, in NumPy and torch alike."""
    sin = torch.sin if isinstance(z, torch.Tensor) else np.sin
    return 1.5 + sin(1.3 * z) - 0.4 * z


def slope(z):
    return 1.3 * np.cos(1.3 * z) - 0.4


def independent(family, *parameters):
    return td.Independent(family(*parameters, validate_args=False), 1, validate_args=False)


def leaves(values, n):
    return [torch.full((n, 1), v, dtype=torch.float64, requires_grad=True) for v in values]


def gradients(estimator, family, values, n=DRAWS, num_samples=1, prior=None):
    torch.manual_seed(0)
    parameters = leaves(values, n)
    estimate = estimator(
        independent(family, *parameters), Target(lambda z: f(z).sum(-1), prior=prior), num_samples
    )
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), parameters), -1)


def gamma_terms(z, alpha, beta):
    """∂T and ∂ log q_ε in (α, β), (N, 2) each: log z = ψ(α) − log β + ε √ψ′(α)."""
    y, root = np.log(z) + np.log(beta), np.sqrt(polygamma(1, alpha))
    eps = (y - digamma(alpha)) / root
    dy = polygamma(1, alpha) + eps * polygamma(2, alpha) / (2 * root)
    rest = y - digamma(alpha) + (alpha - np.exp(y)) * dy + polygamma(2, alpha) / (2 * root**2)
    return np.stack([z * dy, -z / beta], -1), np.stack([rest, 0 * z], -1)


def beta_terms(z, alpha, beta):
    """∂T and ∂ log q_ε in (α, β), (N, 2) each: logit z = ψ(α) − ψ(β) + ε √(ψ′(α) + ψ′(β))."""
    square = polygamma(1, alpha) + polygamma(1, beta)
    eps = (logit(z) - digamma(alpha) + digamma(beta)) / np.sqrt(square)
    total, paths, rests = digamma(alpha + beta), [], []
    for sign, own, log in ((1, alpha, np.log(z)), (-1, beta, np.log1p(-z))):
        dy = sign * polygamma(1, own) + eps * polygamma(2, own) / (2 * np.sqrt(square))
        paths.append(z * (1 - z) * dy)
        along = (alpha * (1 - z) - beta * z) * dy
        rests.append(log + along - digamma(own) + total + polygamma(2, own) / (2 * square))
    return np.stack(paths, -1), np.stack(rests, -1)


def nodes(family, values):
    """Points and weights of q: Gauss-Legendre in log z or logit z, where the density is smooth."""
    if family is td.Gamma:
        q = stats.gamma(values[0], scale=1 / values[1])
        u, weight = legendre(np.log(q.ppf(1e-14)), np.log(q.isf(1e-16)), 400)
        return np.exp(u), weight * q.pdf(np.exp(u)) * np.exp(u)
    q = stats.beta(*values)
    u, weight = legendre(logit(q.ppf(1e-14)), -logit(stats.beta(*values[::-1]).ppf(1e-14)), 400)
    z = expit(u)
    return z, weight * q.pdf(z) * z * (1 - z)


CASES = [(td.Gamma, gamma_terms, v) for v in GAMMAS] + [(td.Beta, beta_terms, v) for v in BETAS]


def one_sample(terms, values, z):
    path, rest = terms(z, *values)
    return slope(z)[:, None] * path + f(z)[:, None] * rest


def exact_gradient(family, values):
    """∇ Σ_i w_i f(z_i): by the score at fixed z."""
    z, weight = nodes(family, values)
    a, b = values
    if family is td.Gamma:
        score = np.stack([np.log(b) + np.log(z) - digamma(a), a / b - z], -1)
    else:
        score = np.stack([np.log(z) - digamma(a), np.log1p(-z) - digamma(b)], -1) + digamma(a + b)
    return weight @ (f(z)[:, None] * score)


def deviates(columns):
    """Whether the columns' means differ from zero.

    Raises:
        ValueError: no verdict.
    """
    transformed, g = studentize(columns)
    if g.abs().max() > 0.1:
        raise ValueError("too skewed for a verdict")
    return bool(transformed.abs().max() > NormalDist().inv_cdf(1 - RATE / (2 * columns.shape[1])))


# --- Mean and variance ---


@pytest.mark.parametrize(("family", "terms", "values"), CASES)
def test_both_terms_are_those_written_out_by_hand(family, terms, values, monkeypatch):
    z = nodes(family, values)[0]
    monkeypatch.setattr(module, "draw", lambda *_: torch.as_tensor(z).reshape(1, -1, 1))
    found = gradients(GeneralizedReparameterization(), family, values, len(z)).numpy()
    np.testing.assert_allclose(found, one_sample(terms, values, z), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("family", "terms", "values"), CASES)
def test_quadrature_of_both_terms_is_that_of_the_score(family, terms, values):
    z, weight = nodes(family, values)
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-9)
    mean = weight @ one_sample(terms, values, z)
    np.testing.assert_allclose(mean, exact_gradient(family, values), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("family", "terms", "values"), CASES)
def test_mean_and_variance_as_measured(family, terms, values):
    z, weight = nodes(family, values)
    mean = exact_gradient(family, values)
    second = weight @ one_sample(terms, values, z) ** 2
    draws = gradients(GeneralizedReparameterization(), family, values)
    assert not deviates(torch.cat((draws - torch.as_tensor(mean), draws**2 - torch.as_tensor(second)), -1))


@pytest.mark.parametrize("wrong", [NoCorrection, NoJacobian, WholeScore])
@pytest.mark.parametrize(("family", "values"), [(td.Gamma, GAMMAS[0]), (td.Beta, BETAS[0])])
def test_a_wrong_correction_is_seen(wrong, family, values):
    draws = gradients(wrong(), family, values)
    assert deviates(draws - torch.as_tensor(exact_gradient(family, values)))


@pytest.mark.parametrize("terms", [gamma_terms, beta_terms])
def test_the_standardized_sample_depends_on_large_parameters_weakly(terms):
    """For a constant f only the correction is left: its variance, and that of the whole score."""
    family = td.Gamma if terms is gamma_terms else td.Beta
    shares = []
    for values in ((1.0, 1.0), (8.0, 8.0), (64.0, 64.0)):
        z, weight = nodes(family, values)
        correction = weight @ terms(z, *values)[1][:, 0] ** 2
        score = polygamma(1, values[0]) - (polygamma(1, sum(values)) if family is td.Beta else 0)
        shares.append(correction / score)
    assert shares[0] < 0.5
    assert shares[1] < shares[0] / 4
    assert shares[2] < shares[1] / 4


def test_the_rate_of_a_gamma_has_no_correction():
    """A constant f: no path, and no correction in β, to the last digit."""
    parameters = leaves((0.7, 2.0), 50)
    estimate = GeneralizedReparameterization()(
        independent(td.Gamma, *parameters), Target(lambda z: 0 * z.sum(-1) + 7.0), 3
    )
    in_concentration, in_rate = torch.autograd.grad(estimate.surrogate.sum(), parameters)
    assert (in_rate == 0).all()
    assert (in_concentration != 0).all()


def test_for_a_gaussian_it_is_reparameterization():
    found = []
    for name in ("generalized-reparameterization", "reparameterization"):
        parameters = leaves((0.4, 1.3), 50)
        torch.manual_seed(3)
        prior = independent(td.Normal, *(torch.ones(1, dtype=torch.float64) for _ in range(2)))
        target = Target(lambda z: f(z).sum(-1), prior=prior)
        estimate = create(f"{name}[kl=sampled]")(independent(td.Normal, *parameters), target, 3)
        found.append(torch.cat((*torch.autograd.grad(estimate.surrogate.sum(), parameters),), -1))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(("family", "values"), [(td.Gamma, GAMMAS[1]), (td.Beta, BETAS[1])])
def test_mean_of_the_elbo_gradient(kl, family, values):
    """Against a prior of the same family; its closed-form KL is differentiated by torch."""
    prior = independent(family, *(torch.full((1,), v, dtype=torch.float64) for v in (1.4, 1.1)))
    draws = gradients(GeneralizedReparameterization(kl), family, values, 100_000, prior=prior)
    alone = leaves(values, 1)
    kl_gradient = torch.autograd.grad(
        td.kl_divergence(family(*alone), family(*(torch.full((1,), v).double() for v in (1.4, 1.1)))).sum(),
        alone,
    )
    exact = torch.as_tensor(exact_gradient(family, values)) - torch.cat(kl_gradient, -1)[0]
    assert not deviates(draws - exact)


# --- What surrounds it ---


def test_the_sample_is_that_of_the_score_function_under_one_seed():
    seen = []

    def record(z):
        seen.append(z.detach())
        return z.sum(-1)

    for name in ("generalized-reparameterization", "score-function"):
        torch.manual_seed(2)
        q = independent(td.Beta, *(torch.full((4, 3), v) for v in (0.7, 1.4)))
        create(name)(q, Target(record), 5)
    assert torch.equal(*seen)


def test_samples_far_below_the_resolution_at_one_count():
    """α = 0.1 in single precision: f = log z, ∂α E f = ψ′(α) − ψ′(α + β), mostly from z below 1e-7."""
    torch.manual_seed(0)
    parameters = [torch.full((DRAWS, 1), v, requires_grad=True) for v in (0.1, 1.5)]
    estimate = GeneralizedReparameterization()(
        independent(td.Beta, *parameters), Target(lambda z: z.log().sum(-1)), 2
    )
    draws = torch.cat(torch.autograd.grad(estimate.surrogate.sum(), parameters), -1).double()
    exact = np.array([polygamma(1, 0.1), 0.0]) - polygamma(1, 1.6)
    assert not deviates(draws - torch.as_tensor(exact))


def test_samples_at_the_ends_of_the_unit_interval_have_finite_gradients():
    parameters = [torch.full((4000, 1), 0.05, requires_grad=True) for _ in range(2)]
    estimate = GeneralizedReparameterization()(
        independent(td.Beta, *parameters), Target(lambda z: z.square().sum(-1)), 5
    )
    found = torch.autograd.grad(estimate.surrogate.sum(), parameters)
    assert all(part.isfinite().all() for part in found)
