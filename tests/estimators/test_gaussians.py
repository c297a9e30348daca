"""The short cuts for diagonal Gaussians give torch's numbers, and its gradients."""

from __future__ import annotations

import pytest
import torch
from elbograd.estimators.posteriors import gaussians
from torch.distributions import Independent, LogNormal, MultivariateNormal, Normal, kl_divergence


def gaussian(*batch, events=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, *(3, 2)[-events:])
    loc = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    scale = torch.rand(shape, generator=generator, dtype=torch.float64).add(0.2).requires_grad_()
    return Independent(Normal(loc, scale), events), (loc, scale)


def assert_same(ours, theirs, leaves):
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad((f * f).sum(), leaves, retain_graph=True) for f in (ours, theirs))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("events", [1, 2])
@pytest.mark.parametrize("batch", [(), (4,), (5, 4)])
def test_values_and_gradients(batch, events):
    q, leaves = gaussian(*batch, events=events)
    prior, of_prior = gaussian(events=events, seed=1)
    torch.manual_seed(0)
    theirs = q.rsample((6,))
    torch.manual_seed(0)
    z = gaussians.rsample(q, 6)
    assert_same(z, theirs, leaves)
    assert_same(gaussians.log_prob(q, z.detach()), q.log_prob(z.detach()), leaves)
    assert_same(gaussians.kl(q, prior), kl_divergence(q, prior.expand(q.batch_shape)), (*leaves, *of_prior))


def test_only_plain_diagonal_gaussians_take_them():
    loc, scale = torch.zeros(4, 2), torch.ones(4, 2)

    class Own(Normal):
        def log_prob(self, value):
            return super().log_prob(value)

    class Named(Normal):
        pass

    for plain in (Normal, Named):
        assert gaussians.is_diagonal_gaussian(Independent(plain(loc, scale), 1))
    for other in (
        Normal(loc, scale),
        Independent(Own(loc, scale), 1),
        Independent(Normal(loc, scale), 0),
        Independent(LogNormal(loc, scale), 1),
        MultivariateNormal(loc, torch.eye(2)),
    ):
        assert not gaussians.is_diagonal_gaussian(other)
