"""States that are certain or impossible: what was there before the discrete estimators stays finite and right.

The mean of an estimate is the sum over all samples that have a probability, each an entry of the batch.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from elbograd.benchmarks.oracles.objectives import exact_objective
from elbograd.estimators import Target, create
from elbograd.estimators.posteriors.outcomes import enumerate_outcomes
from torch import distributions as td

INF = torch.inf


def bernoulli_logits(leaf):
    return td.Independent(td.Bernoulli(logits=leaf, validate_args=False), 1)


def bernoulli_probs(leaf):
    return td.Independent(td.Bernoulli(probs=leaf.sigmoid(), validate_args=False), 1)


def one_hot(leaf):
    return td.Independent(td.OneHotCategorical(logits=leaf, validate_args=False), 1)


POSTERIORS = {  # and which of their parameters move nothing
    "logits of ±40": (bernoulli_logits, [40.0, -40.0, 0.3], [0, 1]),
    "logits of ±1000": (bernoulli_logits, [1000.0, -1000.0, 0.3], [0, 1]),
    "probabilities of 0 and 1": (bernoulli_probs, [-1000.0, 1000.0, 0.3], [0, 1]),
    "one-hot, ±40": (one_hot, [[40.0, -40.0, 0.0], [0.1, 0.7, 0.3]], [0, 1, 2]),
    "one-hot, −1e5": (one_hot, [[1.0, -1e5, -1e5], [0.1, 0.2, -1e5]], [0, 1, 2, 5]),
    "one-hot, masked": (one_hot, [[1.0, -INF, -INF], [0.1, 0.2, -INF]], [0, 1, 2, 5]),
}
ESTIMATORS = (
    "score-function",
    "score-function[kl=sampled]",
    "constant-baseline[value=2.0]",
    "moving-average-baseline[kl=sampled]",
    "learned-baseline[hidden=3]",
    "leave-one-out",
    "leave-one-out[kl=sampled]",
    "vargrad",
    "vimco",
    "vimco[mean=arithmetic]",
    "ovis[auxiliary=1]",
    "ovis[form=asymptotic]",
    "exact",
)
ALSO_FINITE = ("optimal-baseline", "optimal-baseline[kl=sampled]", "reweighted-wake-sleep", "thermodynamic")


def problem(name, dtype, batch):
    family, values, _ = POSTERIORS[name]
    leaf = torch.tensor(values, dtype=dtype)
    leaf = leaf.expand(batch, *leaf.shape).clone().requires_grad_()
    q = family(leaf)
    prior = torch.linspace(-0.4, 0.5, leaf[0].numel(), dtype=dtype).reshape(leaf.shape[1:])
    weight = torch.tensor(1.3, dtype=dtype, requires_grad=True)

    def log_likelihood(z):
        v = z.flatten(2)
        return weight * (0.3 * (v * torch.arange(1, v.shape[-1] + 1)).sum(-1) - 1).square() - 3

    prior_family = one_hot if family is one_hot else bernoulli_logits
    return leaf, q, Target(log_likelihood, prior_family(prior), torch.ones(1, 2, dtype=dtype)), weight


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("spec", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_over_all_that_can_be_drawn_is_exact(spec, name, dtype):
    num_samples, estimator = 2, create(spec)
    draws = 3 if spec.startswith("ovis[aux") else 2
    leaf, q, target, weight = problem(name, dtype, 1)
    exact = exact_objective(q, target, estimator.objective, num_samples).sum()
    expected = torch.autograd.grad(exact, (leaf, weight))
    z = enumerate_outcomes(q)
    z = z[q.log_prob(z)[:, 0].exp() > 0]
    tuples = torch.tensor(list(itertools.product(range(len(z)), repeat=draws)))
    leaf, q, target, weight = problem(name, dtype, len(tuples))
    dealt = z[tuples][:, :, 0].transpose(0, 1)
    probability = q.log_prob(dealt).sum(0).exp().detach()
    torch.manual_seed(0)
    estimator.init(q, target)
    estimator.to(dtype)
    left = iter(dealt)
    q.sample = lambda shape: torch.stack([next(left) for _ in range(shape[0])])
    estimate = estimator(q, target, num_samples)
    assert bool(estimate.value.isfinite().all())
    (h,) = torch.autograd.grad(estimate.surrogate.sum(), leaf, retain_graph=True)
    assert bool(h.isfinite().all())
    (theta,) = torch.autograd.grad((probability * estimate.value).sum(), weight)
    mean = torch.tensordot(probability, h, dims=1)
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(mean, expected[0][0], **tolerance)
    torch.testing.assert_close(theta, expected[1], **tolerance)
    torch.testing.assert_close((probability * estimate.value).sum(), exact.detach(), **tolerance)
    assert float(mean.flatten()[POSTERIORS[name][2]].abs().max()) < 1e-6


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("spec", [*ESTIMATORS, *ALSO_FINITE])
def test_estimates_are_finite_at_any_number_of_samples(spec, name):
    for num_samples, dtype in itertools.product((1, 2, 3, 100), (torch.float32, torch.float64)):
        leaf, q, target, weight = problem(name, dtype, 4)
        estimator = create(spec)
        if estimator.supports(q, target, num_samples) is not None:
            assert num_samples == 1
            continue
        torch.manual_seed(0)
        estimator.init(q, target)
        estimator.to(dtype)
        estimate = estimator(q, target, num_samples)
        found = [estimate.value, *torch.autograd.grad(estimate.surrogate.sum(), leaf, retain_graph=True)]
        found += torch.autograd.grad(estimate.value.sum(), weight)
        assert all(bool(part.isfinite().all()) for part in found)
        certain = found[1].flatten(1)[:, POSTERIORS[name][2]]
        assert float(certain.abs().max()) < 1e-5
