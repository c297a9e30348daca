"""Exact answers over more outcomes than are kept at once: the same as over all, and as algebra has them."""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks.oracles import integrals, references
from elbograd.benchmarks.oracles.clock import Clock
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.oracles.references import Reference, exact_reference, reference_gradient
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, create
from elbograd.estimators.pieces import enumeration
from torch import distributions as td


def at(name, batch=2):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, batch, 0)
    with torch.no_grad():
        return problem, x, problem.encoder(x)


def solved(name, objective="elbo", num_samples=1, batch=2):
    problem, x, eta = at(name, batch)
    theta = list(problem.decoder.parameters())
    answer = exact_gradients(problem.posterior, eta, problem.target, x, theta, objective, num_samples)
    return answer if isinstance(answer, str) else answer[:3]


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Chunks so small that these problems have many."""
    monkeypatch.setattr(enumeration, "_ENTRIES", 14)
    monkeypatch.setattr(enumeration, "_AT_ONCE", 0)
    monkeypatch.setattr(integrals, "_ROWS", 7)


CASES = [
    ("small-vae[posterior=bernoulli]", "elbo", 1),
    ("small-vae[posterior=categorical]", "elbo", 1),
    ("bernoulli-vae[latent_dim=5,hidden=8]", "elbo", 1),
    ("categorical-vae[latent_dim=2,categories=5,hidden=8]", "elbo", 1),
    ("categorical-toy", "elbo", 1),
    ("small-vae[posterior=bernoulli]", "iwae", 1),
    ("small-vae[posterior=bernoulli]", "iwae", 3),
    ("small-vae[posterior=categorical]", "inclusive-kl", 2),
    ("small-vae[posterior=bernoulli]", "thermodynamic[partitions=4,smallest=0.05]", 1),
]


@pytest.mark.parametrize(("name", "objective", "num_samples"), CASES)
def test_a_few_at_a_time_is_all_at_once(name, objective, num_samples, request):
    whole = solved(name, objective, num_samples)
    request.getfixturevalue("few_at_a_time")
    torch.testing.assert_close(solved(name, objective, num_samples), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(("spec", "num_samples"), [("score-function", 3), ("leave-one-out", 2)])
@pytest.mark.parametrize(
    "name",
    ["small-vae[posterior=bernoulli]", "small-vae[posterior=categorical]", "bernoulli-vae[latent_dim=4]"],
)
def test_variances_a_few_outcomes_at_a_time(name, spec, num_samples, kl, request):
    problem, x, eta = at(name)
    estimator = create(spec, kl=kl)
    arguments = (estimator, problem.posterior, eta, problem.target(x), num_samples)
    whole = exact_variance(*arguments)
    request.getfixturevalue("few_at_a_time")
    torch.testing.assert_close(exact_variance(*arguments), whole, rtol=1e-10, atol=1e-12)


def test_a_hundred_thousand_states_have_the_variance_of_the_closed_form():
    d, t, p = 17, 0.4, 0.3
    s, c = p * (1 - p), (1 - 2 * t) / d
    problem, x, eta = at(f"binary-toy[latent_dim={d},target={t},probability={p}]", 1)
    found = exact_variance(create("leave-one-out"), problem.posterior, eta, problem.target(x), 2)
    expected = 0.25 * c**2 * (2 * s + (d - 1) * 4 * s**2) - c**2 * s**2
    torch.testing.assert_close(found, torch.full((1, d), expected).double(), rtol=1e-5, atol=0)
    # The largest part, as the cost moves only little: the exact mean would be the best constant baseline.
    baseline = -(p * (1 - t) ** 2 + (1 - p) * t**2)
    spec = f"constant-baseline[value={baseline}]"
    found = exact_variance(create(spec), problem.posterior, eta, problem.target(x), 1)
    # (f − E f)(z_j − p): the sum over all variables, of which one is j itself.
    q3 = p * (1 - p) ** 4 + (1 - p) * p**4
    expected = c**2 * (q3 + (d - 1) * s**2) - (c * s) ** 2
    torch.testing.assert_close(found, torch.full((1, d), expected).double(), rtol=1e-5, atol=0)


def test_a_reference_over_sixty_five_thousand_states_is_exact():
    problem = load_problem("bernoulli-vae[latent_dim=16]")
    x = first_batch(problem, 3, 0)
    found = exact_reference(problem, x)
    assert isinstance(found, Reference)
    assert found.kind == "enumeration"
    # Fewer variables, the others' columns of the decoder taken away: the same sums by another way.
    exact = place(problem, dtype=torch.float64)
    x = x.double()
    eta = exact.encoder(x).detach()
    bits = (torch.arange(2**16).unsqueeze(-1) >> torch.arange(16)) & 1
    leaf = eta.clone().requires_grad_()
    gradient = torch.zeros_like(eta)
    for part in bits.double().split(2**12):
        z = part.unsqueeze(1)
        log_q = -torch.nn.functional.softplus((1 - 2 * z) * leaf).sum(-1)
        pixels = td.Bernoulli(logits=exact.decoder(z)).log_prob(x).sum(-1).detach()
        f = pixels - 16 * torch.tensor(2.0).double().log() - log_q.detach()
        gradient += torch.autograd.grad((log_q.exp() * f).sum(), leaf)[0]
    torch.testing.assert_close(found.eta_mean, gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "objective", "samples", "line"),
    [
        (
            "bernoulli-vae[latent_dim=21]",
            "elbo",
            1,
            "2^21 outcomes are too many to enumerate (at most 1048576)",
        ),
        ("bernoulli-vae[latent_dim=200]", "iwae", 2, "(2^200)^2 outcomes are too many to enumerate"),
        ("categorical-vae[latent_dim=20,categories=10]", "elbo", 1, "10^20 outcomes are too many"),
        ("categorical-vae[latent_dim=3,categories=1000]", "elbo", 1, "1000^3 outcomes are too many"),
        ("small-vae[posterior=bernoulli]", "iwae", 7, "8^7 outcomes are too many to enumerate (at most"),
    ],
)
def test_what_is_too_many_is_told_with_the_limit(name, objective, samples, line):
    problem, x, eta = at(name, 1)
    answer = exact_gradients(problem.posterior, eta, problem.target, x, [], objective, samples)
    assert answer.startswith(line)
    assert "\n" not in answer


def test_an_enumeration_that_takes_too_long_leaves_time_for_a_long_run(monkeypatch):
    """It is given up when what is done of it tells how long the rest would take."""
    now = [0.0]
    monkeypatch.setattr("elbograd.benchmarks.oracles.clock.time.monotonic", lambda: now[0])
    problem = load_problem("bernoulli-vae[latent_dim=12]")
    x = first_batch(problem, 2, 0)
    counted = []

    def slow(exact, datum):
        target = type(exact).target(exact, datum)

        def log_likelihood(z):
            now[0] += 0.01 * len(z)  # 40 s in all
            counted.append(len(z))
            return target.log_likelihood(z)

        return Target(log_likelihood, target.prior)

    problem.target = slow.__get__(problem)
    monkeypatch.setattr(enumeration, "_AT_ONCE", 0)
    monkeypatch.setattr(enumeration, "_ENTRIES", 128)
    found = exact_reference(problem, x, clock=Clock(10.0))
    assert found.startswith("it takes longer than 10 s")
    assert sum(counted) < 500  # of 4096
    now[0] = 0.0
    assert isinstance(exact_reference(problem, x, clock=Clock(100.0)), Reference)


def test_a_problem_of_many_states_still_has_a_long_run():
    problem = load_problem("bernoulli-vae[latent_dim=24,hidden=8]")
    found = reference_gradient(problem, first_batch(problem, 2, 0), length=references._SHORT_RUN)
    assert found.kind.startswith("long run of leave-one-out")
