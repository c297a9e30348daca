"""Draws that keep their noise: the same numbers, and log q with exact derivatives where z has lost its digits.

No test is statistical: the noise of a seed is known.
"""

import math

import pytest
import torch
from elbograd.estimators.posteriors import distributions, draws, noise
from torch import distributions as td

KINDS = {
    "Normal": lambda loc, scale: td.Normal(loc, scale),
    "diagonal": lambda loc, scale: td.Independent(td.Normal(loc, scale), 1),
    "full": lambda loc, scale: td.MultivariateNormal(loc, scale_tril=tril(scale)),
    "full, independent": lambda loc, scale: td.Independent(td.MultivariateNormal(loc, scale_tril=tril(scale)), 1),
}  # fmt: skip


def tril(scale):
    below = torch.full((scale.shape[-1],) * 2, 0.3).to(scale).tril(-1)
    return torch.diag_embed(scale) + below * scale.unsqueeze(-2)


def made(kind, loc=0.7, scale=0.4, dtype=torch.float64):
    mean = torch.full((2, 4, 3), loc, dtype=dtype, requires_grad=True)
    deviation = torch.full((2, 4, 3), scale, dtype=dtype, requires_grad=True)
    return KINDS[kind](mean, deviation), mean, deviation


def derivatives(value, *leaves):
    return torch.autograd.grad(value.sum(), leaves, retain_graph=True, materialize_grads=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", draws.DRAWS)
def test_draws_are_the_same_numbers(kind, how):
    q, *_ = made(kind, dtype=torch.float32)
    torch.manual_seed(1)
    with_noise, kept = noise.draw(q, 4, how)
    torch.manual_seed(1)
    assert torch.equal(with_noise, draws.draw(q, 4, how))
    assert kept is not None
    torch.manual_seed(1)
    assert torch.equal(with_noise, noise.rsample(q, 4, how)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_densities_and_derivatives_are_those_of_log_prob(kind):
    q, *leaves = made(kind)
    z, kept = noise.draw(q, 5)
    found, expected = noise.log_prob(q, z, kept), distributions.log_prob(q, z)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(derivatives(found, *leaves), derivatives(expected, *leaves))
    moved, *others = made(kind, 0.6, 0.5)
    found, expected = noise.log_prob(moved, z, kept), distributions.log_prob(moved, z)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(derivatives(found, *others), derivatives(expected, *others))
    path, kept = noise.rsample(q, 5)
    expected = derivatives(distributions.log_prob(q, path), *leaves)
    for density in (noise.log_prob, noise.log_prob_along):
        torch.testing.assert_close(derivatives(density(q, path, kept), *leaves), expected)
    fixed = made(kind)[0]
    expected = derivatives(distributions.log_prob(fixed, path), *leaves)
    torch.testing.assert_close(derivatives(noise.log_prob(fixed, path, kept), *leaves), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("loc", "scale"), [(100.0, 1e-5), (1.0, 1e-9), (-3.0, 1e-3)])
def test_the_score_is_exact_where_z_has_lost_its_digits(kind, loc, scale):
    q, *leaves = made(kind, loc, scale, torch.float32)
    z, kept = noise.draw(q, 50)
    found = derivatives(noise.log_prob(q, z, kept), *leaves)
    q, *leaves = made(kind, loc, scale)
    z = distributions.draw(q, 50)
    expected = derivatives(noise.log_prob(q, z, kept._replace(epsilon=kept.epsilon.double())), *leaves)
    for narrow, wide in zip(found, expected, strict=True):
        torch.testing.assert_close(narrow.double() * scale, wide * scale, rtol=1e-4, atol=1e-4)


def test_along_the_path_nothing_drowns_the_rest():
    q, mean, deviation = made("diagonal", 1.0, 1e-9, torch.float32)
    z, kept = noise.rsample(q, 20)
    value = noise.log_prob_along(q, z, kept) - 0.5 * z.square().sum(-1)
    in_mean, in_deviation = derivatives(value, mean, deviation)
    torch.testing.assert_close(in_mean, -z.sum(0))
    torch.testing.assert_close(
        in_deviation * 1e-9, torch.full_like(in_deviation, -20.0), rtol=1e-5, atol=1e-6
    )


def test_classes_derived_from_a_gaussian_keep_their_own_ways():
    class Shifted(td.Normal):
        def rsample(self, sample_shape=torch.Size()):  # noqa: B008
            return super().rsample(sample_shape) + 1

    q = td.Independent(Shifted(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    z, kept = noise.draw(q, 2000)
    assert kept is None
    assert float(z.mean()) == pytest.approx(1.0, abs=6 / math.sqrt(12_000))
