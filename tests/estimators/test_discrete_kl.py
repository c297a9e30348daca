"""The KL of discrete posteriors: torch's numbers, and a gradient where states have probability zero."""

import math

import pytest
import torch
from elbograd.estimators.posteriors.distributions import closed_form_kl
from torch import distributions as td

LOGITS = torch.tensor([[0.3, -0.5, 1.2], [-0.1, 0.4, 0.0]], dtype=torch.float64)
PRIOR = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
FAMILIES = {
    "Categorical": lambda e: (td.Categorical(logits=e), td.Categorical(probs=PRIOR)),
    "OneHotCategorical": lambda e: (td.OneHotCategorical(logits=e), td.OneHotCategorical(probs=PRIOR)),
    "Bernoulli": lambda e: (td.Bernoulli(logits=e), td.Bernoulli(probs=PRIOR)),
    "Bernoulli vector": lambda e: (
        td.Independent(td.Bernoulli(logits=e), 1),
        td.Independent(td.Bernoulli(probs=PRIOR), 1),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_ones_are_torchs(family):
    leaf = LOGITS.clone().requires_grad_()
    q, prior = FAMILIES[family](leaf)
    found, expected = closed_form_kl(q, prior), td.kl_divergence(q, prior.expand(q.batch_shape))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), leaf, retain_graph=True), torch.autograd.grad(expected.sum(), leaf)
    )


@pytest.mark.parametrize("mask", [-math.inf, math.inf, -1e30])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_states_have_no_gradient_and_spoil_no_other(family, mask):
    if mask == math.inf and "ategorical" in family:
        pytest.skip("no probability")
    leaf = LOGITS.clone().requires_grad_()
    far = torch.where(torch.arange(3) == 1, mask, leaf)
    near = torch.where(torch.arange(3) == 1, math.copysign(700.0, mask), leaf)  # as good as masked
    q, prior = FAMILIES[family](far)
    (found,) = torch.autograd.grad(closed_form_kl(q, prior).sum(), leaf)
    q, prior = FAMILIES[family](near)
    (expected,) = torch.autograd.grad(td.kl_divergence(q, prior.expand(q.batch_shape)).sum(), leaf)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["Categorical", "Bernoulli"])
def test_a_prior_that_excludes_what_q_draws_is_infinitely_far(name):
    family = getattr(td, name)
    q = family(logits=LOGITS[:1])
    none = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    assert bool(closed_form_kl(q, family(probs=none)).isinf().any())
