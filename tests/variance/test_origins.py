"""Where a measurement is not finite, the term is named, with a remedy that helps."""

import math

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.estimators import EstimatorError, Target, UsageError
from torch import distributions as td
from torch import nn


class Model:
    """One datum whose eta is a parameter."""

    def __init__(self, eta, posterior, log_likelihood, prior=None):
        self.encoder, self.decoder = nn.Linear(1, len(eta), bias=True), nn.Linear(1, 1)
        with torch.no_grad():
            self.encoder.weight.zero_()
            self.encoder.bias.copy_(torch.tensor(eta))
        self.posterior, self.f, self.prior = posterior, log_likelihood, prior

    def target(self, x):
        return Target(self.f, self.prior)

    def batches(self, split, batch_size, generator=None):
        yield torch.zeros(1, 1)


def normal(eta):
    return td.Independent(td.Normal(eta[..., :1], eta[..., 1:].exp()), 1)


def one_hot(eta):
    return td.OneHotCategorical(logits=eta)


def told(model, estimator, dtype="float32"):
    with pytest.raises((EstimatorError, UsageError)) as raised:
        measure_variance(
            model, estimator, torch.zeros(1, 1), num_samples=2, replicates=64, dtype=dtype, route="factorized"
        )
    return str(raised.value)


def test_a_likelihood_that_is_minus_infinity_is_named():
    model = Model((0.0, 0.0), normal, lambda z: torch.where(z > 0, z, -math.inf).sum(-1))
    for dtype in ("float32", "float64"):
        message = told(model, "leave-one-out", dtype)
        assert "log p(x|z) is −∞" in message
        assert "measure in float64" not in message


def test_a_likelihood_that_overflows_in_float32_alone_is_told_to_be_measured_in_float64():
    model = Model((60.0, 0.0), normal, lambda z: -(2 * z).exp().sum(-1))
    assert "log p(x|z) is −∞ in float32, but not in float64: measure in float64" in told(
        model, "leave-one-out"
    ).replace(" (512 of 512 numbers)", "").replace(" (256 of 256 numbers)", "")


def test_a_closed_form_kl_that_is_infinite_is_named():
    prior = td.OneHotCategorical(probs=torch.tensor([0.0, 0.5, 0.5]))
    model = Model((0.1, 0.2, 0.3), one_hot, lambda z: z.sum(-1), prior)
    assert "the closed-form KL of OneHotCategorical against OneHotCategorical" in told(model, "leave-one-out")


def test_what_overflows_moments_alone_is_not_told_to_go_where_it_is():
    model = Model((0.0, 0.0), normal, lambda z: 1e200 * z.sum(-1))
    message = told(model, "leave-one-out", "float64")
    assert "overflow float64" in message
    assert "measure in float64" not in message
    model = Model((0.0, 0.0), normal, lambda z: 1e25 * z.sum(-1))
    assert "overflow float32; measure in float64" in told(model, "leave-one-out")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("estimator", ["leave-one-out", "exact"])
def test_masked_logits_are_measured(estimator, dtype):
    def masked(eta):
        return one_hot(torch.cat((eta, torch.full_like(eta[..., :1], -math.inf)), -1))

    prior = td.OneHotCategorical(probs=torch.tensor([0.25, 0.25, 0.5]))
    model = Model((0.0, 0.5), masked, lambda z: (z * torch.tensor([1.0, 2.0, 3.0]).to(z)).sum(-1), prior)
    result = measure_variance(
        model, estimator, torch.zeros(1, 1), num_samples=50, replicates=2000, dtype=dtype
    )
    assert float(result.mean["bias"][0]) == pytest.approx(-0.117502, abs=2e-3)  # by algebra
