"""The belief network of two layers: its densities by hand, and exact means of all that can be used on it.

Every way to draw S samples is one entry of the batch, dealt to the estimator in place of its draws; the weighted
sum over all of them is the exact mean, gradients of the upper layer's network and of θ included.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.oracles.objectives import exact_objective
from elbograd.benchmarks.oracles.references import whole_reference
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import create
from elbograd.estimators.posteriors.distributions import cut
from elbograd.estimators.posteriors.outcomes import outcomes

SIZES = [(2, 2), (3, 1), (2, 3)]


def network(latent_dim=2, upper_dim=2):
    """With weights so large that both layers and both directions count."""
    problem = place(
        load_problem(f"sigmoid-belief-network[latent_dim={latent_dim},upper_dim={upper_dim}]"),
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(latent_dim + 7 * upper_dim)
    with torch.no_grad():
        for name, p in (*problem.encoder.named_parameters(), *problem.decoder.named_parameters()):
            scale = 0.3 if p.numel() > 100 else 1.0
            p += scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            if name == "lower.bias" and len(p) > 3:
                p.mul_(0.3)
    return problem, first_batch(problem, 1, 0)


def log_bernoulli(bits, logits):
    return torch.where(
        bits > 0, torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    )


def by_hand(problem, x, bits):
    """log q(z|x), log p(z) and log p(x|z) of one z, for one datum."""
    z1, z2 = bits[: problem.latent_dim], bits[problem.latent_dim :]
    e, d = problem.encoder, problem.decoder
    log_q = log_bernoulli(z1, e.lower.weight @ x[0] + e.lower.bias).sum()
    log_q = log_q + log_bernoulli(z2, e.upper.weight @ z1 + e.upper.bias).sum()
    log_p = log_bernoulli(z2, d.prior).sum() + log_bernoulli(z1, d.upper.weight @ z2 + d.upper.bias).sum()
    return log_q, log_p, log_bernoulli(x[0], d.lower.weight @ z1 + d.lower.bias).sum()


def all_bits(problem):
    size = problem.latent_dim + problem.upper_dim
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)), dtype=torch.float64)


def log_weights(problem, x):
    """log q and log w = log p(x, z) − log q of every z, (N,), attached to everything."""
    parts = [by_hand(problem, x, bits) for bits in all_bits(problem)]
    log_q, log_p, log_x = (torch.stack(part) for part in zip(*parts, strict=True))
    return log_q, log_p + log_x - log_q


def gradients(value, module):
    parameters = list(module.parameters())
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
        ]
    )


@pytest.mark.parametrize("sizes", SIZES)
def test_densities_and_support_by_hand(sizes):
    problem, x = network(*sizes)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    assert outcomes(q) == 2 ** sum(sizes)
    z = q.enumerate_support()
    assert torch.equal(z[:, 0], all_bits(problem))
    found = q.log_prob(z)[:, 0], target.prior.log_prob(z)[:, 0], target.log_likelihood(z)[:, 0]
    expected = [torch.stack(part) for part in zip(*(by_hand(problem, x, b) for b in z[:, 0]), strict=True)]
    torch.testing.assert_close(list(found), expected)
    torch.testing.assert_close(found[0].exp().sum(), torch.ones(()).double())
    torch.testing.assert_close(found[1].exp().sum(), torch.ones(()).double())


def test_draws_are_of_the_joint():
    # 200,000 draws in 16 cells: 5 standard errors each, 1e-5 in all.
    problem, x = network()
    torch.manual_seed(0)
    for q in (problem.posterior(problem.encoder(x)), problem.target(x).prior):
        z = q.sample((200_000,)).reshape(-1, 4)
        counts = torch.bincount((z @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16) / len(z)
        p = q.log_prob(q.enumerate_support()).exp().reshape(16).detach()
        assert bool(((counts - p).abs() <= 5 * (p * (1 - p) / len(z)).sqrt()).all())


@pytest.mark.parametrize("sizes", SIZES)
def test_exact_is_the_sum_over_both_layers(sizes):
    problem, x = network(*sizes)
    log_q, log_w = log_weights(problem, x)
    elbo = (log_q.exp() * log_w).sum()
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    value = create("exact")(q, target, 1).value.sum()
    torch.testing.assert_close(value, elbo)
    for module in (problem.encoder, problem.decoder):
        torch.testing.assert_close(gradients(value, module), gradients(elbo, module))
    two = torch.stack(
        [torch.stack((log_w[i], log_w[j])).logsumexp(0) for i in range(len(log_w)) for j in range(len(log_w))]
    )
    bound = ((log_q.unsqueeze(1) + log_q).flatten().exp() * (two - torch.tensor(2.0).double().log())).sum()
    found = exact_objective(q, target, "iwae", 2).sum()
    torch.testing.assert_close(found, bound)
    torch.testing.assert_close(gradients(found, problem.encoder), gradients(bound, problem.encoder))


class Dealt:
    """All ways to draw, each an entry of the batch: posterior, weights (N,), and the draws dealt in order."""

    def __init__(self, problem, x, draws):
        bits = all_bits(problem)
        tuples = torch.tensor(list(itertools.product(range(len(bits)), repeat=draws)))
        self.z = bits[tuples].transpose(0, 1).unsqueeze(2)  # (draws, N, 1, D)
        eta = problem.encoder(x).expand(len(tuples), 1, problem.latent_dim)
        self.q = problem.posterior(eta)
        log_q = self.q.log_prob(self.z).squeeze(-1)  # (draws, N)
        self.weights = log_q.sum(0).exp()
        self.q.ancestral = self.deal
        self.dealt = 0

    def deal(self, shape, one):
        first, self.dealt = self.dealt, self.dealt + shape[0]
        return self.z[first : self.dealt]


ESTIMATORS = [
    ("score-function[kl=sampled]", 1, 1),
    ("score-function[kl=sampled]", 2, 2),
    ("constant-baseline[value=-40.0,kl=sampled]", 1, 1),
    ("moving-average-baseline[kl=sampled]", 1, 1),
    ("learned-baseline[kl=sampled,hidden=3]", 1, 1),
    ("leave-one-out[kl=sampled]", 2, 2),
    ("vargrad", 2, 2),
    ("vimco", 2, 2),
    ("vimco[mean=arithmetic]", 2, 2),
    ("ovis[auxiliary=1]", 1, 2),
    ("ovis[form=asymptotic]", 2, 2),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("spec", "num_samples", "draws"), ESTIMATORS)
def test_means_are_exact_in_both_layers_and_in_theta(spec, num_samples, draws, sizes):
    problem, x = network(*sizes)
    estimator, target = create(spec), problem.target(x)
    q = problem.posterior(problem.encoder(x))
    assert estimator.supports(q, target, num_samples) is None
    torch.manual_seed(0)
    estimator.init(q, target)
    estimator.double()
    if spec.startswith("moving"):
        estimator.update(estimator(q, target, num_samples))
    every = Dealt(problem, x, draws)
    estimate = estimator(every.q, target, num_samples)
    weights = every.weights.detach()
    exact = exact_objective(q, target, estimator.objective, num_samples).sum()
    torch.testing.assert_close((weights * estimate.value[:, 0]).sum(), exact)
    mean = gradients((weights * estimate.surrogate[:, 0]).sum(), problem.encoder)
    torch.testing.assert_close(mean, gradients(exact, problem.encoder), rtol=1e-7, atol=1e-9)
    upper = sum(p.numel() for p in problem.encoder.upper.parameters())
    assert bool((mean[-upper:].abs() > 1e-6).all())
    mean = gradients((weights * estimate.value[:, 0]).sum(), problem.decoder)
    torch.testing.assert_close(mean, gradients(exact, problem.decoder), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_wake_phase_follows_the_weighted_samples_in_both_layers(sizes):
    problem, x = network(*sizes)
    log_q, log_w = log_weights(problem, x)
    target = problem.target(x)
    every = Dealt(problem, x, 2)
    estimate = create("reweighted-wake-sleep")(every.q, target, 2)
    weights = every.weights.detach()
    n = len(log_q)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    two = torch.stack([torch.stack((log_w[i], log_w[j])) for i, j in pairs])
    bound = (weights * (two.logsumexp(1) - torch.tensor(2.0).double().log())).sum()
    torch.testing.assert_close((weights * estimate.value[:, 0]).sum(), bound)
    torch.testing.assert_close(
        gradients((weights * estimate.value[:, 0]).sum(), problem.decoder), gradients(bound, problem.decoder)
    )
    normalized = two.detach().softmax(1)
    fit = sum(
        w * (a * log_q[i] + b * log_q[j])
        for w, (a, b), (i, j) in zip(weights, normalized, pairs, strict=True)
    )
    torch.testing.assert_close(
        gradients((weights * estimate.surrogate[:, 0]).sum(), problem.encoder),
        gradients(fit, problem.encoder),
    )


def test_a_layer_whose_score_is_cut_off_is_seen():
    """The same test on a posterior that draws the upper layer without its score: its gradient is wrong."""
    problem, x = network()
    exact = exact_objective(problem.posterior(problem.encoder(x)), problem.target(x)).sum()
    right = gradients(exact, problem.encoder)
    every = Dealt(problem, x, 1)
    whole = every.q.layers["z2"]
    every.q.layers["z2"] = lambda z1: cut(whole(z1))
    estimate = create("score-function[kl=sampled]")(every.q, problem.target(x), 1)
    mean = gradients((every.weights.detach() * estimate.surrogate[:, 0]).sum(), problem.encoder)
    size = sum(p.numel() for p in problem.encoder.lower.parameters())
    torch.testing.assert_close(mean[:size], right[:size])
    assert not torch.allclose(mean[size:], right[size:], rtol=1e-2)


# --- In the suite ---


def test_the_full_route_is_taken_and_the_bias_is_exact():
    problem = load_problem("sigmoid-belief-network[latent_dim=3,upper_dim=2]")
    x = first_batch(problem, 4, 0)
    asked = measure_variance(
        problem, "leave-one-out[kl=sampled]", x, num_samples=3, replicates=400, route="full"
    )
    found = measure_variance(problem, "leave-one-out[kl=sampled]", x, num_samples=3, replicates=400)
    assert found.route == "full"
    assert found.total == asked.total
    assert set(found.mean) == {"lower.weight", "lower.bias", "upper.weight", "upper.bias"}
    reference = whole_reference(problem, x)
    assert reference.kind == "enumeration"
    exact = place(problem, dtype=torch.float64)
    value = create("exact")(
        exact.posterior(exact.encoder(x.double())), exact.target(x.double()), 1
    ).value.mean()
    torch.testing.assert_close(
        torch.cat([g.flatten() for g in reference.mean.values()]), gradients(value, exact.encoder)
    )
    # 28 standard errors of the mean: no coordinate is off by as much as its own noise in a few estimates.
    off = torch.cat([(found.mean[n].double() - g).flatten() for n, g in reference.mean.items()])
    error = torch.cat([v.flatten() for v in found.per_parameter.values()]) / 400
    assert bool((off.square() <= 28 * error + 1e-12).all())


def test_a_network_too_large_to_enumerate_has_a_long_run_of_whole_gradients():
    problem = load_problem("sigmoid-belief-network[latent_dim=20,upper_dim=10]")
    reference = whole_reference(problem, first_batch(problem, 2, 0), length=64)
    assert reference.kind.startswith("long run of leave-one-out[kl=sampled]")


def test_the_closed_kl_is_refused_in_a_line():
    problem, x = network()
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    line = create("leave-one-out").supports(q, target, 2)
    why = "which the prior draws given z2 and the posterior before it"
    assert line == f"no closed-form KL of z1, {why}: use kl=sampled"
    assert (
        create("score-function[kl=sampled,draws=antithetic]")
        .supports(q, target, 2)
        .startswith("draws=antithetic")
    )


@pytest.mark.parametrize("name", ["rebar", "straight-through", "gumbel-softmax"])
def test_what_needs_independent_variables_refuses_in_a_line(name):
    problem, x = network()
    line = create(name).supports(problem.posterior(problem.encoder(x)), problem.target(x), 2)
    assert line == "takes one latent, not several in layers: use leave-one-out or disarm"


def test_it_is_trained():
    name = "sigmoid-belief-network[latent_dim=2,upper_dim=2]"
    before = load_problem(name)
    run = train(name, "vimco", steps=3, num_samples=2)
    assert all(math.isfinite(point.heldout_objective) for point in run.history)
    for side in ("encoder", "decoder"):
        old, new = (dict(getattr(p, side).named_parameters()) for p in (before, run.problem))
        assert all(not torch.equal(old[name], new[name]) for name in old)
