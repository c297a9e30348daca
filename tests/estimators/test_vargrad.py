"""VarGrad: exact by enumeration of the pairs of samples, and the same estimate as leave-one-out."""

from __future__ import annotations

import itertools

import pytest
import torch
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.methods.vargrad import VarGrad
from elbograd.estimators.pieces.objective import integrand
from elbograd.estimators.posteriors.distributions import log_prob
from torch import distributions as td

LOGITS, PRIOR = (-1.2, 0.7), (0.5, -0.8)


class BiasedNormalization(VarGrad):
    """The variance over S in place of S − 1."""

    def forward(self, q, target, num_samples):
        return rescaled(super().forward(q, target, num_samples), (num_samples - 1) / num_samples)


class NoHalf(VarGrad):
    """The variance, not half of it."""

    def forward(self, q, target, num_samples):
        return rescaled(super().forward(q, target, num_samples), 2.0)


class Descent(VarGrad):
    """The gradient of the loss, not of the ELBO."""

    def forward(self, q, target, num_samples):
        return rescaled(super().forward(q, target, num_samples), -1.0)


class AttachedCost(VarGrad):
    """Samples of a reparameterizable posterior not detached: r moves with φ."""

    def forward(self, q, target, num_samples):
        z = q.rsample((num_samples,))
        f = integrand(q, target, z, "sampled", log_prob(q, z))
        return Estimate(-0.5 * f.var(0), f.mean(0).detach())


def rescaled(estimate, factor):
    return estimate._replace(surrogate=factor * estimate.surrogate)


def bernoulli(logits):
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def gaussian(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def cost(z):
    return 1.3 * (z[..., 0] - 0.4) ** 2 + z[..., 0] * z[..., 1] - 2.0 * z[..., 1]


def target_of(prior):
    return Target(cost, bernoulli(torch.tensor(PRIOR, dtype=torch.float64)) if prior else None)


def outcomes(num_samples):
    """Every z_1 … z_S, (S, 4^S, 2)."""
    each = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)
    index = torch.tensor(list(itertools.product(range(4), repeat=num_samples)))
    return each[index].transpose(0, 1)


def expected_gradient(estimator, num_samples, prior):
    """E of the estimate and of its value, by enumeration of all samples: one an entry of the batch."""
    z = outcomes(num_samples)
    logits = torch.tensor(LOGITS, dtype=torch.float64).expand(z.shape[1], 2).clone().requires_grad_()
    q = bernoulli(logits)
    q.sample = lambda shape: z
    probability = q.log_prob(z).sum(0).exp().detach()
    estimate = estimator(q, target_of(prior), num_samples)
    (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), logits)
    return probability @ gradient, probability @ estimate.value.detach()


def exact(prior):
    """∇ of and the objective itself: Σ_z q(z) (f + log p − log q), probabilities written out."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for outcome in itertools.product((0.0, 1.0), repeat=2):
        z = torch.tensor(outcome, dtype=torch.float64)
        mass = (z * logits.sigmoid() + (1 - z) * (-logits).sigmoid()).prod()
        p = torch.tensor(PRIOR, dtype=torch.float64).sigmoid()
        prior_mass = (z * p + (1 - z) * (1 - p)).prod()
        total = total + mass * (cost(z) + (prior_mass.log() - mass.log() if prior else 0.0))
    return torch.autograd.grad(total, logits)[0], total.detach()


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("num_samples", [2, 3, 4])
def test_the_mean_over_every_outcome_is_the_gradient(num_samples, prior):
    for found, truth in zip(expected_gradient(VarGrad(), num_samples, prior), exact(prior), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", [BiasedNormalization, NoHalf, Descent])
@pytest.mark.parametrize("num_samples", [2, 4])
def test_a_wrong_normalization_or_sign_is_seen(wrong, num_samples):
    found, truth = expected_gradient(wrong(), num_samples, True)[0], exact(True)[0]
    assert not torch.allclose(found, truth, rtol=0.1)


def normal_case(shape, dtype):
    leaves = torch.zeros(shape, dtype=dtype), torch.full(shape, 0.7, dtype=dtype)
    prior = gaussian(torch.ones(shape[-1], dtype=dtype), torch.full(shape[-1:], 1.7, dtype=dtype))
    return gaussian, leaves, Target(lambda z: z.sin().sum(-1), prior)


def bernoulli_case(shape, dtype):
    leaves = (torch.linspace(-1, 1, shape[-1], dtype=dtype).expand(shape).clone(),)
    return (
        bernoulli,
        leaves,
        Target(lambda z: z.cos().sum(-1), bernoulli(torch.zeros(shape[-1], dtype=dtype))),
    )


def gradients(estimator, case, shape, dtype, num_samples, prior=True):
    family, leaves, target = case(shape, dtype)
    leaves = tuple(leaf.requires_grad_() for leaf in leaves)
    torch.manual_seed(4)
    target = target if prior else Target(target.log_likelihood)
    estimate = estimator(family(*leaves), target, num_samples)
    assert estimate.surrogate.shape == estimate.value.shape == shape[:-1]
    assert estimate.surrogate.dtype == dtype
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), leaves), -1)


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("num_samples", [2, 3, 17])
@pytest.mark.parametrize("shape", [(3,), (4, 1), (5, 4, 3)])
@pytest.mark.parametrize("case", [normal_case, bernoulli_case])
def test_it_is_leave_one_out_with_a_sampled_kl(case, shape, num_samples, dtype, tolerance, prior):
    ours, theirs = (
        gradients(create(name), case, shape, dtype, num_samples, prior)
        for name in ("vargrad", "leave-one-out[kl=sampled]")
    )
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("wrong", [BiasedNormalization, AttachedCost])
def test_the_identity_does_not_hold_for_a_wrong_one(wrong):
    setting = (normal_case, (5, 4, 3), torch.float64, 2)
    difference = gradients(wrong(), *setting) - gradients(create("leave-one-out[kl=sampled]"), *setting)
    assert difference.abs().max() > 0.1
