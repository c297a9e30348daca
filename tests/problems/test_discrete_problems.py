"""Problems with discrete latents: the toys against the algebra of their costs, and VAEs of any size."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, UsageError, create


def at(name, batch=1):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, batch, 0)
    return problem, x, problem.encoder(x)


def gradient(problem, x):
    """∇φ of the objective, flattened."""
    value = create("exact")(problem.posterior(problem.encoder(x)), problem.target(x), 1).value
    return torch.cat([g.flatten() for g in torch.autograd.grad(value.mean(), problem.encoder.parameters())])


def variance_of(spec, name, num_samples):
    problem, x, eta = at(name)
    return exact_variance(create(spec), problem.posterior, eta.detach(), problem.target(x), num_samples)


# --- The toys ---


@pytest.mark.parametrize(("d", "t", "p"), [(1, 0.45, 0.3), (4, 0.499, 0.5), (3, 1.3, 0.02)])
def test_binary_toy_by_hand(d, t, p):
    problem, x, eta = at(f"binary-toy[latent_dim={d},target={t},probability={p}]")
    value = create("exact")(problem.posterior(eta), problem.target(x), 1).value
    assert value.item() == pytest.approx(-(p * (1 - t) ** 2 + (1 - p) * t**2))
    expected = torch.full((d,), p * (1 - p) * (2 * t - 1) / d, dtype=torch.float64)
    torch.testing.assert_close(
        gradient(problem, x), expected, rtol=1e-6, atol=0
    )  # logits are float32 at first


def test_binary_toy_has_the_variances_of_the_closed_forms():
    # c²(¼(v + (D − 1)v²) − s²), v = 2s, for leave-one-out with two samples, c = (1 − 2t)/D.
    d, t, p = 5, 0.4, 0.3
    s, c = p * (1 - p), (1 - 2 * t) / d
    v = 2 * s
    expected = 0.25 * c**2 * (v + (d - 1) * v**2) - c**2 * s**2
    found = variance_of("leave-one-out", f"binary-toy[latent_dim={d},target={t},probability={p}]", 2)
    torch.testing.assert_close(found, torch.full((1, d), expected, dtype=torch.float64), rtol=1e-6, atol=0)
    single = variance_of("score-function", "binary-toy[target=0.45,probability=0.3]", 1)
    assert single.item() == pytest.approx(0.015594, abs=1e-6)


def test_the_shared_logit_sums_over_its_copies():
    for logit, expected in ((0.0, -0.045), (-4.0, -0.00317929)):
        problem, x, eta = at(f"shared-logit[logit={logit}]")
        assert eta.shape == (1, 3)
        assert -gradient(problem, x).item() == pytest.approx(expected, abs=5e-9)
    # REINFORCE and leave-one-out at η = 0: their variances in φ, 5 standard errors (6e-7 each).
    for spec, samples, expected in (("score-function", 1, 0.43842), ("leave-one-out", 2, 0.007275)):
        found = measure_variance("shared-logit", spec, num_samples=samples, replicates=40_000, seed=1)
        assert found.route == "factorized"
        error = (found.ci_high - found.ci_low) / 3.92
        assert abs(found.total - expected) < 5 * error


@pytest.mark.parametrize(("d", "k"), [(3, 4), (2, 5), (1, 2)])
def test_categorical_toy_by_brute_force(d, k):
    problem, x, eta = at(f"categorical-toy[latent_dim={d},categories={k},seed=2]")
    log_pi = eta.unflatten(-1, (d, k)).log_softmax(-1)[0]
    total = 0.0
    for states in itertools.product(range(k), repeat=d):
        z = torch.nn.functional.one_hot(torch.tensor(states), k).double()
        v = z.flatten()
        cost = v @ problem._linear + v @ problem._coupling @ v
        torch.testing.assert_close(problem.cost(z), cost)
        total = total - (z * log_pi).sum().exp() * cost
    torch.testing.assert_close(create("exact")(problem.posterior(eta), problem.target(x), 1).value[0], total)
    (brute,) = torch.autograd.grad(total, problem.encoder.parameters())
    torch.testing.assert_close(gradient(problem, x), brute)


def test_categorical_variables_are_coupled_and_seeds_differ():
    problem, _, _ = at("categorical-toy")
    z = torch.eye(4, dtype=torch.float64)[:3].reshape(1, 3, 4)
    others = [z.clone() for _ in range(3)]
    others[0][0, 0] = others[2][0, 0] = torch.eye(4)[3]
    others[1][0, 1] = others[2][0, 1] = torch.eye(4)[3]
    base, first, second, both = (float(problem.cost(v)) for v in (z, *others))
    assert abs(both - first - second + base) > 1e-3
    assert not torch.equal(problem._linear, load_problem("categorical-toy[seed=1]")._linear)


def test_a_cost_between_the_states_is_the_polynomial():
    """What moves z off the support meets no kink there, and the mean of the cost of a linear one is linear."""
    for name in ("binary-toy[latent_dim=3]", "shared-logit", "categorical-toy"):
        problem, x, eta = at(name)
        z = problem.posterior(eta).mean.detach()
        assert torch.autograd.gradcheck(problem.target(x).log_likelihood, z.unsqueeze(0).requires_grad_())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("binary-toy[probability=1]", "probability=1 is not between 0 and 1"),
        ("binary-toy[probability=-0.1]", "probability=-0.1 is not between 0 and 1"),
        ("binary-toy[latent_dim=0]", "latent_dim=0 is not a positive integer"),
        ("binary-toy[target=high]", "target='high' is not a number"),
        ("shared-logit[logit=nan]", "logit="),
        ("categorical-toy[categories=1]", "categories=1 is not an integer of 2 or more"),
        ("categorical-vae[categories=1]", "categories=1 is not an integer of 2 or more"),
        ("categorical-vae[latent_dim=2.5]", "latent_dim=2.5 is not a positive integer"),
    ],
)
def test_bad_arguments_are_told_in_one_line(name, line):
    with pytest.raises(UsageError) as told:
        load_problem(name)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


# --- VAEs of any size ---


def test_categorical_vae_by_brute_force():
    problem, x, eta = at("categorical-vae[latent_dim=2,categories=3,hidden=8]", 2)
    log_pi = eta.unflatten(-1, (2, 3)).log_softmax(-1)
    total = torch.zeros(2, dtype=torch.float64)
    for states in itertools.product(range(3), repeat=2):
        z = torch.nn.functional.one_hot(torch.tensor(states), 3).double()
        pixels = torch.distributions.Bernoulli(logits=problem.decoder(z))
        log_q = (z * log_pi).sum((-1, -2))
        f = pixels.log_prob(x).sum(-1) - 2 * math.log(3) - log_q
        total = total + log_q.exp() * f
    target = problem.target(x)
    sampled = Target(target.log_likelihood, target.prior)
    torch.testing.assert_close(create("exact")(problem.posterior(eta), sampled, 1).value, total)


@pytest.mark.parametrize(
    "name",
    [
        "bernoulli-vae[latent_dim=200,hidden=200,layers=2]",
        "categorical-vae[latent_dim=20,categories=10]",
        "categorical-vae[latent_dim=3,categories=1000]",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_ones_take_a_step(name, dtype):
    problem = place(load_problem(name), dtype=dtype)
    x = first_batch(problem, 4, 0)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    estimate = create("leave-one-out")(q, target, 3)
    grads = torch.autograd.grad(
        estimate.value.mean(), [*problem.encoder.parameters(), *problem.decoder.parameters()]
    )
    assert all(bool(g.isfinite().all()) and g.dtype == dtype for g in grads)
    assert all(bool(g.any()) for g in grads)
