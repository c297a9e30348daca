"""Public VAEs brought by `from_vae`: their gradients are those of their own code, and what does not fit is told.

Gradients are compared with the user's own modules and autograd at the same draws, to rounding in float64
(relative 1e-10 of the largest), so there are no false alarms; each comparison is also shown to fail on a wrong
reading.
"""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks.problems import from_vae
from elbograd.benchmarks.problems.checks import check_problem
from elbograd.benchmarks.problems.placement import batches_of
from public_models import MODELS
from torch import distributions as td

ROUNDING = 1e-10


def brought(name):
    """A model, what from_vae makes of it, and how it was brought; in float64."""
    torch.manual_seed(3)
    how = MODELS[name]
    model = how.make().double()
    positional, keywords = how.arguments(model)
    return model, from_vae(*positional, how.data, **keywords), how


def batch(problem, size):
    """A batch as the suite has it, and x and y by index as the user does."""
    served = next(batches_of(problem, "train", size, torch.Generator().manual_seed(5)))
    x, y = problem.encoder._encoding.packing.unpack(served)
    return served, x, y


def gradients(value, modules):
    """By parameter, those of the model itself on both sides."""
    parameters = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, retain_graph=True)
    return {key: g for key, g in zip(parameters, found, strict=True) if g is not None}


def by_hand(model, how, x, y, samples):
    """The ELBO (S, B) with the user's code, one sample at a time, under the current seed's noise."""
    q, prior = how.q(model, x, y), how.prior(model)
    z = q.rsample((samples,)) if q.has_rsample else q.sample((samples,))
    likelihood = torch.stack([how.log_p(model, one, x, y) for one in z])
    kl = (
        q.log_prob(z) - prior.log_prob(z) if how.sampled else td.kl_divergence(q, prior.expand(q.batch_shape))
    )
    return z, likelihood - how.weight * kl, q


def same(ours, theirs):
    """Whether two gradients by parameter are, to rounding."""
    scale = max(float(g.abs().max()) for g in theirs.values())
    return set(ours) == set(theirs) and all(
        float((gradient - theirs[key]).abs().max()) <= ROUNDING * scale for key, gradient in ours.items()
    )


@pytest.mark.parametrize(("size", "samples"), [(1, 1), (7, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_users_code(name, size, samples):
    model, problem, how = brought(name)
    check_problem(problem)
    served, x, y = batch(problem, size)
    mine, target = problem.posterior(problem.encoder(served)), problem.target(served)
    q, prior = how.q(model, x, y), how.prior(model)
    z = q.rsample((samples,)) if q.has_rsample else q.sample((samples,))

    def objective(log_p, q, prior, z, weight):
        kl = (
            q.log_prob(z) - prior.log_prob(z)
            if how.sampled
            else td.kl_divergence(q, prior.expand(q.batch_shape))
        )
        score = (
            0 if q.has_rsample else q.log_prob(z) * log_p.detach()
        )  # which has a gradient, and no value of interest
        return (log_p + score - weight * kl).mean()

    theirs = objective(torch.stack([how.log_p(model, one, x, y) for one in z]), q, prior, z, how.weight)
    flat = z.reshape(samples, size, *mine.event_shape)
    log_p, sides = target.log_likelihood(flat), (problem.encoder, problem.decoder)
    ours = objective(log_p, mine, target.prior, flat, target.kl_weight)
    expected = gradients(theirs, [model])
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert same(gradients(ours, sides), expected)
    wrong = objective(log_p, mine, target.prior, flat, 1.001 * target.kl_weight)
    assert not same(gradients(wrong, sides), expected)
    in_two = flat.expand(2, *flat.shape).transpose(0, 1)  # two replicates, as the suite draws them
    assert torch.allclose(target.log_likelihood(in_two)[:, 1], log_p, rtol=ROUNDING, atol=0)
