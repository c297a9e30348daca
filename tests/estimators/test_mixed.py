"""The mixture of pathwise and score-function gradient: its formula at given noise, its variance by quadrature.

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
from elbograd.estimators.methods import mixed
from elbograd.estimators.methods.mixed import Mixed
from elbograd.estimators.testing.mean_test import studentize
from oracles import expectation, reparameterization_eta, score_function_eta
from torch import distributions as td

RATE = 1e-6

#: cost -> (f, f') in NumPy, f in torch.
COSTS = {
    "quadratic": (lambda z: (z - 1.5) ** 2, lambda z: 2 * (z - 1.5), lambda z: (z - 1.5).square()),
    "cosine": (
        lambda z: np.cos(3.0 * z),
        lambda z: -3.0 * np.sin(3.0 * z),
        lambda z: torch.cos(3.0 * z),
    ),
    "spike": (
        lambda z: np.exp(-9.0 * z**2),
        lambda z: -18.0 * z * np.exp(-9.0 * z**2),
        lambda z: torch.exp(-9.0 * z.square()),
    ),
}
MU, SIGMA = 0.4, 0.8


class CovarianceIgnored(Mixed):
    def weigh(self, path, score):
        return score.var(0) / (score.var(0) + path.var(0))


class WeightsSwapped(Mixed):
    def weigh(self, path, score):
        return 1 - super().weigh(path, score)


class SecondMoments(Mixed):
    """E s², E r² and E s r for variances and covariance."""

    def weigh(self, path, score):
        difference = score - path
        return (score * difference).sum(0) / (difference.square().sum(0) - difference.mean(0).square())


class OwnSamples(Mixed):
    """Weights and baseline from the samples that are averaged."""

    def forward(self, q, target, num_samples):
        state = torch.get_rng_state()
        kept, both = [], mixed._both

        def once(*arguments):
            torch.set_rng_state(state)
            kept.append(both(*arguments))
            return kept[-1]

        mixed._both = once
        try:
            return super().forward(q, target, num_samples)
        finally:
            mixed._both = both


def gaussian(loc, scale, events=1):
    return td.Independent(td.Normal(loc, scale, validate_args=False), events, validate_args=False)


def one_dimensional(name):
    return lambda z: COSTS[name][2](z).sum(-1)


def gradients(estimator, cost, n, num_samples=1):
    """n one-datum gradients in (μ, log σ), (n, 2), of E cost(z), cost (..., 1) -> (...)."""
    torch.manual_seed(0)
    leaves = [torch.full((n, 1), v, dtype=torch.float64, requires_grad=True) for v in (MU, math.log(SIGMA))]
    estimate = estimator(gaussian(leaves[0], leaves[1].exp()), Target(cost), num_samples)
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), leaves), -1)


def deviates(columns):
    """Whether the columns' means differ from zero.

    Raises:
        ValueError: no verdict.
    """
    transformed, g = studentize(columns)
    if g.abs().max() > 0.1:
        raise ValueError("too skewed for a verdict")
    return bool(transformed.abs().max() > NormalDist().inv_cdf(1 - RATE / (2 * columns.shape[1])))


def per_noise(name, baseline):
    """eps (N, 1) -> pathwise and score-function gradients in (μ, log σ), (N, 4)."""
    f, slope = COSTS[name][:2]
    at = np.array([MU]), np.array([SIGMA])

    def both(eps):
        path = reparameterization_eta(slope, *at)(eps)
        return np.concatenate([path, score_function_eta(lambda z: f(z[:, 0]), *at, baseline)(eps)], 1)

    return both


def optimum(name):
    """Mean, variances V_r and V_s, covariance C, least variance, and the weight that has it."""
    centre = expectation(lambda eps: COSTS[name][0](MU + SIGMA * eps), 1, 150)[0][0]
    mean, covariance = expectation(per_noise(name, centre), 1, 150)
    np.testing.assert_allclose(mean[:2], mean[2:], rtol=1e-6)  # the quadrature is fine enough
    variance = np.diag(covariance).copy()
    of_path, of_score, shared = variance[:2], variance[2:], np.diag(covariance[:2, 2:]).copy()
    spread = of_path + of_score - 2 * shared
    least = (of_path * of_score - shared**2) / spread
    return mean[:2], of_path, of_score, shared, least, (of_score - shared) / spread


# --- The formula ---


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(
    ("kind", "holds"),
    [(Mixed, True), (CovarianceIgnored, False), (WeightsSwapped, False), (SecondMoments, False)],
)
def test_the_estimate_at_given_noise(kind, holds, cost, monkeypatch):
    """(V_s − C) / (V_s + V_r − 2C) from the pilot's noise, and b its mean of f."""
    pilot, noise = np.linspace(-2.1, 1.7, 12)[:, None], np.linspace(-3, 3, 7)[:, None]

    def rsample(q, num_samples):
        loc, scale = q.base_dist.loc, q.base_dist.scale
        eps = torch.as_tensor(pilot).unsqueeze(-1) if len(loc) == len(pilot) else torch.as_tensor(noise)
        return (loc + scale * eps).unsqueeze(0), None

    monkeypatch.setattr(mixed, "rsample", rsample)
    found = gradients(kind(pilot=len(pilot)), one_dimensional(cost), len(noise)).numpy()
    both = per_noise(cost, COSTS[cost][0](MU + SIGMA * pilot).mean())
    path, score = np.split(both(pilot), 2, axis=1)
    covariance = [np.cov(path[:, k], score[:, k]) for k in range(2)]
    weight = np.array([(c[1, 1] - c[0, 1]) / (c[0, 0] + c[1, 1] - 2 * c[0, 1]) for c in covariance])
    path, score = np.split(both(noise), 2, axis=1)
    expected = weight * path + (1 - weight) * score
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12) is holds


def test_a_linear_cost_is_left_to_the_path_which_is_constant():
    draws = gradients(Mixed(pilot=8), lambda z: 3.0 * z.sum(-1), 50)
    torch.testing.assert_close(draws[:, 0], torch.full((50,), 3.0, dtype=torch.float64), rtol=1e-9, atol=1e-9)


# --- Mean and variance ---


@pytest.mark.parametrize("cost", COSTS)
def test_the_variance_tends_to_the_least_one(cost):
    """With 200 pilot samples it is at most 4% above the least; 5 standard errors have rate 1e-6."""
    mean, of_path, of_score, _, least, _ = (torch.as_tensor(part) for part in optimum(cost))
    draws = gradients(Mixed(pilot=200), one_dimensional(cost), 10_000, 8)
    squares = 8 * (draws - mean).square()
    error = squares.std(0) / math.sqrt(len(draws))
    assert (squares.mean(0) > least - 5 * error).all()
    assert (squares.mean(0) < 1.04 * least + 5 * error).all()
    better = torch.minimum(of_path, of_score)
    assert (squares.mean(0) + 5 * error < better).any()  # and so less than either alone


def test_the_cosine_and_the_spike_gain_from_the_score_and_the_quadratic_from_the_covariance():
    assert (optimum("spike")[2] < optimum("spike")[1]).all()
    assert (optimum("cosine")[2] < optimum("cosine")[1]).all()
    assert (optimum("quadratic")[1] < optimum("quadratic")[2]).all()
    assert (optimum("quadratic")[5] > 1).any()


@pytest.mark.parametrize("wrong", [CovarianceIgnored, WeightsSwapped])
def test_other_weights_are_unbiased_and_noisier(wrong):
    mean, *_, least, _ = (torch.as_tensor(part) for part in optimum("quadratic"))
    draws = gradients(wrong(pilot=50), one_dimensional("quadratic"), 20_000, 4)
    squares = 4 * (draws - mean).square()
    error = squares.std(0) / math.sqrt(len(draws))
    assert not deviates(draws - mean)
    assert (squares.mean(0) > 1.1 * least + 5 * error).any()


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("kind", "biased"), [(Mixed, False), (OwnSamples, True)])
def test_weights_from_samples_of_their_own_leave_the_mean_alone(cost, kind, biased):
    mean = torch.as_tensor(optimum(cost)[0])
    draws = gradients(kind(pilot=6), one_dimensional(cost), 100_000, 6)
    assert deviates(draws - mean) is biased


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_mean_of_the_elbo_gradient(kl):
    mean = optimum("cosine")[0] - np.array([MU, SIGMA**2 - 1])  # KL against N(0, 1)
    torch.manual_seed(1)
    n = 50_000
    leaves = [torch.full((n, 1), v, dtype=torch.float64, requires_grad=True) for v in (MU, math.log(SIGMA))]
    zero = torch.zeros(1, dtype=torch.float64)
    target = Target(one_dimensional("cosine"), prior=gaussian(zero, zero + 1))
    surrogate = Mixed(pilot=8, kl=kl)(gaussian(leaves[0], leaves[1].exp()), target, 2).surrogate
    draws = torch.cat(torch.autograd.grad(surrogate.sum(), leaves), -1)
    assert not deviates(draws - torch.as_tensor(mean))
    assert deviates(draws - torch.as_tensor(optimum("cosine")[0]))


# --- Other posteriors ---


def test_mean_under_a_gamma():
    """f = log z: E f = ψ(α) − log β, so ∂α = ψ′(α) and ∂β = −1/β."""
    torch.manual_seed(0)
    alpha, beta = (torch.full((50_000, 1), v, dtype=torch.float64, requires_grad=True) for v in (1.7, 0.6))
    q = td.Independent(td.Gamma(alpha, beta, validate_args=False), 1, validate_args=False)
    estimate = Mixed(pilot=16)(q, Target(lambda z: z.log().sum(-1)), 2)
    draws = torch.cat(torch.autograd.grad(estimate.surrogate.sum(), (alpha, beta)), -1)
    exact = torch.stack((torch.polygamma(1, alpha[0, 0]), -1 / beta[0, 0])).detach()
    assert not deviates(draws - exact)


def test_mean_under_a_full_covariance():
    """f = sin(w·z): E f = sin(w·μ) exp(−½ |Lᵀw|²)."""
    torch.manual_seed(0)
    w = torch.tensor([1.1, -0.6], dtype=torch.float64)
    one_loc = torch.tensor([0.5, -0.8], dtype=torch.float64)
    one_tril = torch.tensor([[0.5, 0.0], [-0.3, 0.9]], dtype=torch.float64)
    loc = one_loc.expand(50_000, 2).clone().requires_grad_()
    tril = one_tril.expand(50_000, 2, 2).clone().requires_grad_()
    q = td.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
    estimate = Mixed(pilot=16)(q, Target(lambda z: torch.sin(z @ w)), 2)
    found = torch.autograd.grad(estimate.surrogate.sum(), (loc, tril))
    assert (found[1][:, 0, 1] == 0).all()
    one_loc.requires_grad_()
    one_tril.requires_grad_()
    objective = torch.sin(w @ one_loc) * torch.exp(-0.5 * (one_tril.T @ w).square().sum())
    exact = torch.autograd.grad(objective, (one_loc, one_tril))
    rows, columns = torch.tril_indices(2, 2)
    draws = torch.cat((found[0] - exact[0], (found[1] - exact[1])[:, rows, columns]), -1)
    assert not deviates(draws)


# --- What surrounds it ---


def test_a_scalar_posterior_and_a_constant_cost():
    loc = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    estimate = Mixed()(td.Normal(loc, 1.0), Target(lambda z: 0 * z + 5.0), 3)
    assert estimate.value.tolist() == [5.0] * 4
    assert torch.autograd.grad(estimate.surrogate.sum(), loc)[0].tolist() == [0.0] * 4


def test_too_small_a_pilot_is_refused():
    with pytest.raises(UsageError, match="pilot=3 is not an integer of 4 or more"):
        create("mixed[pilot=3]")
