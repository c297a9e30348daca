"""OVIS against exact expectations over all draws of 3 Bernoulli latents, auxiliary ones included."""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.estimators import create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods.ovis import OVIS
from elbograd.estimators.pieces.importance_weights import log_sum_of_others
from enumerated import OUTCOMES, Enumerated

UNIFORM = torch.zeros(1, 3, dtype=torch.float64)


class OwnSamplesAgain(OVIS):
    """The samples themselves for auxiliary ones: c_k depends on z_k."""

    def _averaged(self, log_w, auxiliary):
        return super()._averaged(log_w, log_w)


class WithoutOwnWeight(OVIS):
    """d_k without −ŵ_k, in the control variate and in the estimate alike."""

    def _asymptotic(self, log_w):
        return super()._asymptotic(log_w) - log_w.softmax(0)


class OthersNotReweighted(OVIS):
    """log Σ_{l≠k} w_l − log K in place of log(K − 1), then log(1 − 1/K) again: not wrong, not OVIS."""

    def _asymptotic(self, log_w):
        return super()._asymptotic(log_w) + math.log1p(-1 / len(log_w))


def exact(given, k):
    theta = list(given.problem.decoder.parameters())
    return exact_gradients(
        given.problem.posterior, given.eta, given.problem.target, given.x, theta, "iwae", k
    )


def wake_phi(given, k):
    """E Σ_k ŵ_k ∇_η log q(z_k): the score of Bernoulli logits is z − sigmoid(η)."""
    z = given.z[:k]
    scores = z - given.eta.sigmoid()
    return given.mean((given.log_w(z).softmax(0).unsqueeze(-1) * scores).sum(0)[:, 0])


@pytest.mark.parametrize(("k", "auxiliary"), [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_monte_carlo_has_the_exact_mean(k, auxiliary):
    given = Enumerated(k + auxiliary)
    mean, _, value = given.moments(OVIS(auxiliary=auxiliary), k)
    answer = exact(given, k)
    torch.testing.assert_close(mean, answer.eta_grad[0])
    torch.testing.assert_close(value, answer.value[0])
    torch.testing.assert_close(given.theta_gradient(OVIS(auxiliary=auxiliary), k), answer.theta_grad)
    if k > 1:
        wrong, _, _ = given.moments(OwnSamplesAgain(auxiliary=auxiliary), k)
        assert not torch.allclose(wrong, answer.eta_grad[0], rtol=1e-2)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [2, 3])
def test_asymptotic_has_the_mean_that_its_docstring_states(k, gamma):
    given = Enumerated(k)
    estimator = OVIS("asymptotic", gamma=gamma)
    mean, _, value = given.moments(estimator, k)
    answer = exact(given, k)
    torch.testing.assert_close(mean, answer.eta_grad[0] + gamma * wake_phi(given, k))
    torch.testing.assert_close(value, answer.value[0])
    assert estimator.unbiased == torch.allclose(mean, answer.eta_grad[0], rtol=1e-6)
    wrong, _, _ = given.moments(WithoutOwnWeight("asymptotic", gamma=gamma), k)
    assert not torch.allclose(wrong, answer.eta_grad[0] + gamma * wake_phi(given, k), rtol=1e-2)


def test_what_gamma_adds_does_not_shrink_with_k_and_the_gradient_does():
    sizes = (2, 3, 4)
    found = [Enumerated(k) for k in sizes]
    gradients = [float(exact(given, k).eta_grad.norm()) for given, k in zip(found, sizes, strict=True)]
    added = [float(wake_phi(given, k).norm()) for given, k in zip(found, sizes, strict=True)]
    assert gradients == sorted(gradients, reverse=True)
    assert added == sorted(added)


def test_every_outcome_as_auxiliary_sample_of_a_uniform_q_is_the_conditional_mean():
    k = 2
    given = Enumerated(k, UNIFORM)
    log_w, all_log_w = given.log_w(given.z)[..., 0], given.log_w(OUTCOMES.reshape(8, 1, 3))[:, 0]
    expected = torch.zeros_like(given.leaf[:, 0]).detach()
    for own, other in ((0, 1), (1, 0)):

        def d(weight, rest):
            total = torch.logaddexp(weight, rest)
            return total - math.log(k) - (weight - total).exp()

        c = d(all_log_w.unsqueeze(1), log_w[other]).mean(0)
        expected += (d(log_w[own], log_w[other]) - c).unsqueeze(-1) * (given.z[own, :, 0] - 0.5)
    estimator = OVIS(auxiliary=8)
    estimator._auxiliary_weights = lambda q, target: all_log_w.reshape(8, 1, 1).expand(8, 64, 1)
    h, _ = given.draws(estimator, k)
    torch.testing.assert_close(h, expected)


def test_the_variance_falls_like_one_over_auxiliary_to_that_of_the_conditional_mean():
    """c_k is a mean of A iid terms given the samples, hence Var_A = Var_∞ + (Var_1 − Var_∞)/A exactly."""
    k = 2
    every = given = Enumerated(k, UNIFORM)
    every_log_w = given.log_w(OUTCOMES.reshape(8, 1, 3)).reshape(8, 1, 1)
    limit = OVIS(auxiliary=8)
    limit._auxiliary_weights = lambda q, target: every_log_w.expand(8, 64, 1)
    _, at_infinity, _ = every.moments(limit, k)
    _, one, _ = Enumerated(k + 1, UNIFORM).moments(OVIS(auxiliary=1), k)
    _, two, _ = Enumerated(k + 2, UNIFORM).moments(OVIS(auxiliary=2), k)
    torch.testing.assert_close(two, at_infinity + (one - at_infinity) / 2)
    assert (at_infinity < one).all()


def test_at_one_sample_it_is_the_score_function_with_an_independent_baseline():
    given = Enumerated(2)
    h, _ = given.draws(OVIS(auxiliary=1), 1)
    log_w = given.log_w(given.z)
    torch.testing.assert_close(h, (log_w[0] - log_w[1]) * (given.z[0, :, 0] - given.eta.sigmoid()))


def test_gamma_0_is_arithmetic_vimco_less_a_constant():
    """c_k − L̂_{−k} = log(1 − 1/K): the same mean, another variance."""
    given = Enumerated(3)
    h, _ = given.draws(OVIS("asymptotic"), 3)
    vimco, _ = given.draws(create("vimco[mean=arithmetic]"), 3)
    scores = (given.z - given.eta.sigmoid()).sum(0)[:, 0]
    torch.testing.assert_close(h - vimco, -math.log(2 / 3) * scores)
    wrong, _ = given.draws(OthersNotReweighted("asymptotic"), 3)
    assert not torch.allclose(wrong - vimco, -math.log(2 / 3) * scores, rtol=1e-2)


def test_the_sum_of_others_does_not_cancel_where_one_weight_dominates():
    log_w = torch.tensor([[800.0], [3.0], [-900.0], [3.0]], dtype=torch.float64)
    others = torch.stack([log_w[[j for j in range(4) if j != k]].logsumexp(0) for k in range(4)])
    torch.testing.assert_close(log_sum_of_others(log_w), others, rtol=1e-15, atol=0)
    assert log_sum_of_others(log_w[:1]).eq(-math.inf).all()


def test_the_signal_to_noise_ratio_rises_with_k():
    """As √K with the optimal control variate; that of ``iwae`` falls (see test_multi_sample_bounds)."""

    def snr(name, k):
        problem = "conjugate[latent_dim=2,distance=0.3]"
        return measure_variance(problem, name, num_samples=k, replicates=1500).snr

    assert snr("ovis[form=asymptotic]", 32) > snr("ovis[form=asymptotic]", 4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ovis[gamma=0.5]", "gamma is of form=asymptotic, not of form=monte-carlo"),
        ("ovis[form=asymptotic,auxiliary=2]", "auxiliary is of form=monte-carlo, not of form=asymptotic"),
        ("ovis[form=asymptotic,gamma=1.5]", "gamma=1.5 is not between 0 and 1"),
    ],
)
def test_arguments_of_the_other_form_are_told_in_one_line(spec, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as error:
        create(spec)
    assert "\n" not in str(error.value)
