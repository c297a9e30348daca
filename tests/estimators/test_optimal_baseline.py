"""The optimal baseline where its weights vanish, and for posteriors of other shapes."""

from __future__ import annotations

import pytest
import torch
from elbograd.estimators import Target, create
from torch import distributions as td


def gradient(q, leaf, samples):
    estimator = create("optimal-baseline")
    torch.manual_seed(0)
    estimate = estimator(q, Target(lambda z: z.flatten(2).sum(-1) if z.dim() > 2 else z), samples)
    assert estimate.surrogate.shape == q.batch_shape
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]


@pytest.mark.parametrize("logit", [20.0, -110.0])
def test_a_saturated_bernoulli_has_a_gradient_of_zero(logit):
    logits = torch.full((3, 2), logit, requires_grad=True)
    assert torch.equal(gradient(td.Independent(td.Bernoulli(logits=logits), 1), logits, 2), torch.zeros(3, 2))


def test_the_upper_triangle_of_a_cholesky_factor_has_a_gradient_of_zero():
    tril = torch.tensor([[0.3, 0.0], [0.5, 2.0]]).repeat(3, 1, 1).requires_grad_()
    found = gradient(td.MultivariateNormal(torch.zeros(3, 2), scale_tril=tril), tril, 4)
    assert found.isfinite().all()
    assert (found[:, 0, 1] == 0).all()


def test_a_scalar_posterior():
    # E z = loc: 20,000 samples of a score with a baseline, variance about 2 each: 5 standard errors are 0.05.
    loc = torch.zeros(3, requires_grad=True)
    torch.testing.assert_close(gradient(td.Normal(loc, 0.7), loc, 20_000), torch.ones(3), atol=0.05, rtol=0)
