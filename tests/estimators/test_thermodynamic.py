"""The thermodynamic objective against algebra, and its estimator against exact expectations over all draws.

Under Bernoulli logits with score s = z − sigmoid(η), ∇_η E_π[log w] = −E_π[s] + (1 − β) Cov_π(s, log w).
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from elbograd.benchmarks.oracles.objectives import exact_gradients, exact_objective
from elbograd.estimators import Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods.thermodynamic import Thermodynamic, partition
from elbograd.estimators.testing import estimator_checks
from enumerated import OUTCOMES, Enumerated
from torch import distributions as td

UNIFORM = torch.zeros(1, 3, dtype=torch.float64)


class CovarianceForgotten(Thermodynamic):
    """The tempered posterior taken for fixed."""

    def tempered(self, log_q, f, beta):
        return torch.zeros_like(log_q)


class ProposalTakenForFixed(Thermodynamic):
    """The self-normalized average differentiated as it stands: log w^β for log π̃, the movement of q missing."""

    def tempered(self, log_q, f, beta):
        return beta * f


class WeightsOfTheRightEnd(Thermodynamic):
    """The right Riemann sum, an upper bound."""

    def __init__(self, partitions=5, smallest=0.1):
        super().__init__(partitions, smallest)
        self.betas = (*self.betas[1:], 1.0 + self.betas[1])


def solved(given, objective):
    theta = list(given.problem.decoder.parameters())
    problem = given.problem
    return exact_gradients(problem.posterior, given.eta, problem.target, given.x, theta, objective)


def by_hand(given, betas):
    """Value and η-gradient by sums over the 8 outcomes."""
    z = OUTCOMES.reshape(8, 1, 3)
    log_w = given.log_w(z)[:, 0]
    q = given.problem.posterior(given.eta)
    log_q, score = q.log_prob(z)[:, 0], z[:, 0] - given.eta.sigmoid()
    value, gradient = 0.0, 0.0
    for beta, following in pairwise(betas):
        pi = (log_q + beta * log_w).softmax(0)
        mean, centre = pi @ log_w, pi @ score
        covariance = (pi * (log_w - mean)) @ (score - centre)
        value = value + (following - beta) * mean
        gradient = gradient + (following - beta) * ((1 - beta) * covariance - centre)
    return value, gradient


# --- The exact objective ---


@pytest.mark.parametrize("arguments", [(1, 0.1), (2, 0.3), (4, 0.02)])
def test_the_exact_objective_is_the_sum_over_outcomes(arguments):
    given = Enumerated(1)
    value, gradient = by_hand(given, partition(*arguments))
    answer = solved(given, "thermodynamic[partitions={},smallest={}]".format(*arguments))
    torch.testing.assert_close(answer.value[0], value)
    torch.testing.assert_close(answer.eta_grad[0], gradient)


def test_the_exact_objective_is_the_closed_form_under_gaussians():
    """log w = A z² + B z + C, and π_β is Gaussian with precision (1 − β)/σ² + βΛ."""
    a, s, x, mu, sigma = 1.4, 0.9, 0.7, 0.3, 0.8
    betas = partition(3, 0.05)
    square = -0.5 * (1 + a**2 / s**2) + 0.5 / sigma**2
    linear = a * x / s**2 - mu / sigma**2
    constant = (
        -0.5 * x**2 / s**2 - math.log(s * math.sqrt(2 * math.pi)) + 0.5 * mu**2 / sigma**2 + math.log(sigma)
    )
    expected = 0.0
    for beta, following in pairwise(betas):
        precision = 1 / sigma**2 - 2 * beta * square
        mean = (mu / sigma**2 + beta * linear) / precision
        expected += (following - beta) * (square * (mean**2 + 1 / precision) + linear * mean + constant)
    unit = torch.ones(1, 1, dtype=torch.float64)
    q = td.Independent(td.Normal(mu * unit, sigma * unit), 1)
    prior = td.Independent(td.Normal(0 * unit[0], unit[0]), 1)
    target = Target(lambda z: td.Normal(a * z, s).log_prob(z.new_tensor(x)).sum(-1), prior)
    value = exact_objective(q, target, "thermodynamic[partitions=3,smallest=0.05]")
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_it_rises_from_the_elbo_to_the_evidence():
    given = Enumerated(1)
    z = OUTCOMES.reshape(8, 1, 3)
    evidence = float((given.target.log_likelihood(z) + given.target.prior.log_prob(z)).detach().logsumexp(0))
    values = [
        float(solved(given, f"thermodynamic[partitions={p},smallest=0.1]").value) for p in (1, 2, 5, 20, 400)
    ]
    assert values[0] == pytest.approx(float(solved(given, "elbo").value), rel=1e-12)
    assert values[:4] == sorted(values[:4])
    assert values[-1] < evidence
    assert evidence - values[-1] < 0.2 * (evidence - values[0])


def test_the_gradient_is_that_of_the_value_in_theta():
    """The gradient in one parameter of the decoder against a central difference of the sum by hand."""
    given = Enumerated(1)
    answer = solved(given, "thermodynamic[partitions=3,smallest=0.2]")
    first = next(iter(given.problem.decoder.parameters()))
    values = []
    for step in (-1e-5, 1e-5):
        with torch.no_grad():
            first.view(-1)[0] += step
            values.append(float(by_hand(given, partition(3, 0.2))[0]))
            first.view(-1)[0] -= step
    assert float(answer.theta_grad[0]) == pytest.approx((values[1] - values[0]) / 2e-5, rel=1e-5)


def test_an_objective_without_a_partition_has_no_exact_value():
    given = Enumerated(1)
    for brackets in ("", "[partitions=0,smallest=0.1]", "[partitions=3]", "[5]"):
        name = f"thermodynamic{brackets}"
        assert solved(given, name) == f"no exact value of the objective {name!r} is known"


# --- The estimator ---


@pytest.mark.parametrize("k", [2, 3])
def test_one_partition_is_unbiased_for_the_elbo(k):
    given = Enumerated(k)
    estimator = Thermodynamic(partitions=1)
    assert (estimator.objective, estimator.unbiased, estimator.unbiased_value) == ("elbo", True, True)
    mean, _, value = given.moments(estimator, k)
    answer = solved(given, "elbo")
    torch.testing.assert_close(mean, answer.eta_grad[0])
    torch.testing.assert_close(value, answer.value[0])
    torch.testing.assert_close(given.theta_gradient(estimator, k), answer.theta_grad)


def test_one_partition_is_leave_one_out_draw_by_draw():
    given = Enumerated(3)
    h, value = given.draws(Thermodynamic(partitions=1), 3)
    expected, same = given.draws(create("leave-one-out[kl=sampled]"), 3)
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(value, same)
    more, _ = given.draws(Thermodynamic(partitions=2), 3)
    assert not torch.allclose(more, expected, rtol=1e-2)


def every_outcome(estimator, copies=1000):
    """Value, η- and θ-gradient where the samples are every outcome of a uniform q, ``copies`` times over."""
    given = Enumerated(1, UNIFORM)
    leaf = given.eta.clone().requires_grad_()
    q = given.problem.posterior(leaf)
    q.sample = lambda shape: OUTCOMES.reshape(8, 1, 3).repeat(copies, 1, 1)
    estimate = estimator(q, given.target, 8 * copies)
    assert estimate.surrogate is estimate.value
    parameters = list(given.problem.decoder.parameters())
    eta_grad, *parts = torch.autograd.grad(estimate.value.sum(), [leaf, *parameters], materialize_grads=True)
    return estimate.value.detach(), eta_grad, torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("arguments", [(1, 0.1), (2, 0.3), (5, 0.05)])
def test_with_samples_in_the_proportions_of_q_it_is_exact(arguments):
    """Nothing is random: the weighted sums are E_π, and K/(K−1) is 1.0001."""
    answer = solved(Enumerated(1, UNIFORM), "thermodynamic[partitions={},smallest={}]".format(*arguments))[:3]
    found = every_outcome(Thermodynamic(*arguments))
    for one, other in zip(found, answer, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for wrong in (CovarianceForgotten, ProposalTakenForFixed, WeightsOfTheRightEnd):
        parts = every_outcome(wrong(*arguments))
        errors = [
            float((one - other).norm() / other.norm()) for one, other in zip(parts, answer, strict=True)
        ]
        assert max(errors) > 0.02, wrong


def test_the_bias_is_one_over_k():
    """In η, in θ and in value; measured exactly at K = 3, 4, 5."""
    estimator = Thermodynamic(partitions=3, smallest=0.1)
    answer = solved(Enumerated(1), estimator.objective)
    scaled = []
    for k in (3, 4, 5):
        given = Enumerated(k)
        mean, _, value = given.moments(estimator, k)
        theta = given.theta_gradient(estimator, k)
        pairs = ((mean, answer.eta_grad[0]), (value, answer.value[0]), (theta, answer.theta_grad))
        scaled.append([k * float((one - other).detach().norm()) for one, other in pairs])
    for previous, last in zip(*scaled[-2:], strict=True):
        assert last == pytest.approx(previous, rel=0.25)


def test_an_unbiased_value_is_checked_only_where_it_is_claimed():
    def names(unbiased_value):
        def build():
            estimator = create("score-function")
            estimator.unbiased_value = unbiased_value
            return estimator

        return {check.name.partition("[")[0] for check in estimator_checks(build)}

    assert names(True) - names(False) == {"value", "theta"}


def test_arguments():
    for spec, message in (
        ("thermodynamic[smallest=1.0]", "smallest=1.0 is not between 0 and 1"),
        ("thermodynamic[smallest=0]", "smallest=0 is not positive"),
    ):
        with pytest.raises(UsageError, match=message.replace("[", r"\[")):
            create(spec)
