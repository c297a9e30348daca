"""The noise behind an estimate: every operation is read as what it draws, and q's own draw comes of it again."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from elbograd.benchmarks.certification.noise import noise_of, replayed
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators.posteriors import draws as drawing
from elbograd.estimators.posteriors.distributions import reparameterizable
from elbograd.estimators.testing.random_operations import RandomOperations
from torch import distributions as td

R, B, S, V = 5, 3, 4, 2
MEAN = torch.linspace(-1, 1, R * B * V, dtype=torch.float64).reshape(R, B, V).expand(S, R, B, V).contiguous()
STD = MEAN.exp()
P = torch.sigmoid(MEAN)


def empty():
    return torch.empty(S, R, B, V, dtype=torch.float64)


#: What draws, and the standard numbers in what it draws, by their definition.
STANDARD = {
    "randn": (lambda: torch.randn(S, R, B, V).double(), "normal", lambda z: z),
    "randn_like": (lambda: torch.randn_like(MEAN), "normal", lambda z: z),
    "normal of means": (lambda: torch.normal(MEAN), "normal", lambda z: z - MEAN),
    "normal of means and one deviation": (
        lambda: torch.normal(MEAN, 3.0),
        "normal",
        lambda z: (z - MEAN) / 3,
    ),
    "normal of deviations": (lambda: torch.normal(2.0, STD), "normal", lambda z: (z - 2) / STD),
    "normal of both": (lambda: torch.normal(MEAN, STD), "normal", lambda z: (z - MEAN) / STD),
    "normal of numbers": (
        lambda: torch.normal(2.0, 3.0, (S, R, B, V)).double(),
        "normal",
        lambda z: (z - 2) / 3,
    ),
    "filled with normal ones": (lambda: empty().normal_(2, 3), "normal", lambda z: (z - 2) / 3),
    "filled with standard normal ones": (lambda: empty().normal_(), "normal", lambda z: z),
    "rand": (lambda: torch.rand(S, R, B, V).double(), "uniform", lambda u: u),
    "filled with uniform ones": (lambda: empty().uniform_(-1, 3), "uniform", lambda u: (u + 1) / 4),
    "filled from -1 on": (lambda: empty().uniform_(-1), "uniform", lambda u: (u + 1) / 2),
    "filled with exponential ones": (lambda: empty().exponential_(2.0), "exponential", lambda e: 2 * e),
    "filled with standard exponential ones": (lambda: empty().exponential_(), "exponential", lambda e: e),
    "bernoulli": (lambda: torch.bernoulli(P), "bits", lambda b: b),
    "bernoulli of one probability": (lambda: torch.bernoulli(MEAN, 0.3), "bits", lambda b: b),
    "filled with bits": (lambda: empty().bernoulli_(P), "bits", lambda b: b),
    "filled with fair bits": (lambda: empty().bernoulli_(), "bits", lambda b: b),
    "gamma": (lambda: torch._standard_gamma(STD), "gamma", lambda z: z),
    "Laplace": (
        lambda: td.Laplace(MEAN, STD).rsample(),
        "uniform",
        lambda z: td.Laplace(MEAN, STD).cdf(z),
    ),
}
PROBABILITY = {
    "bernoulli": P,
    "bernoulli of one probability": 0.3,
    "filled with bits": P,
    "filled with fair bits": 0.5,
    "gamma": STD,
}


def noise(draw, replicates=R, data=B):
    with RandomOperations() as seen:
        found = draw()
    return found, [noise_of(one, replicates, data) for one in seen.drawn]


@pytest.mark.parametrize("name", STANDARD)
def test_an_operation_is_read_as_standard_numbers(name):
    draw, kind, standard = STANDARD[name]
    drawn, (found,) = noise(draw)
    assert found.kind == kind
    wanted = standard(drawn)
    if name == "Laplace":  # its tails are mirrored
        torch.testing.assert_close((found.values - 0.5).abs(), (wanted - 0.5).abs(), rtol=1e-6, atol=1e-9)
    else:
        torch.testing.assert_close(found.values, wanted, rtol=1e-6, atol=1e-12)
    if name in PROBABILITY:
        wanted = torch.as_tensor(PROBABILITY[name], dtype=torch.float64).expand(S, R, B, V)
        torch.testing.assert_close(found.parameter, wanted)
    assert found.states == (2 if kind == "bits" else 0)


@pytest.mark.parametrize("name", STANDARD)
def test_the_same_numbers_give_the_same_draw(name):
    draw, *_ = STANDARD[name]
    torch.manual_seed(0)
    drawn, found = noise(draw)
    torch.manual_seed(1)
    assert not torch.equal(draw(), drawn)
    torch.testing.assert_close(replayed(draw, found, R, B), drawn, rtol=1e-6, atol=1e-7)


def test_states_are_read_with_the_samples_in_front():
    probs = torch.softmax(torch.arange(B * V * 3, dtype=torch.float64).reshape(B, V, 3).sin(), -1)
    q = td.OneHotCategorical(probs.expand(R, B, V, 3))
    drawn, (found,) = noise(lambda: q.sample((S,)))
    assert (found.kind, found.states) == ("states", 3)
    torch.testing.assert_close(found.values, drawn.argmax(-1).double())
    torch.testing.assert_close(found.parameter, probs.expand(1, R, B, V, 3), rtol=1e-6, atol=1e-7)
    _, (without,) = noise(lambda: torch.multinomial(probs.expand(R, B, V, 3).reshape(-1, 3), 2))
    assert without is None  # states that exclude each other are not independent


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randint(0, 2, (S, R, B, V)),
        lambda: torch.randn(S, B, R, V),
        lambda: torch.randn(S, R * B, V),
        lambda: torch.randperm(R),
        lambda: torch.poisson(STD),
        lambda: torch.normal(MEAN, torch.zeros_like(STD)),
    ],
)
def test_what_is_not_understood_is_left_alone(draw):
    _, found = noise(draw)
    assert found == [None]


@pytest.mark.parametrize("sizes", [(3, 3, 2), (2, 4, 4), (1, 1, 1), (5, 2, 5), (4, 4, 4)])
def test_dimensions_of_equal_length_are_not_mixed_up(sizes):
    """S, R and V, where R is not B."""
    samples, replicates, latent = sizes
    data = replicates + 1
    drawn, (found,) = noise(lambda: torch.randn(samples, replicates, data, latent), replicates, data)
    torch.testing.assert_close(found.values, drawn.double())
    drawn, (found,) = noise(lambda: torch.randn(replicates, data, latent), replicates, data)
    torch.testing.assert_close(found.values, drawn.double().unsqueeze(0))
    drawn, (found,) = noise(lambda: torch.randn(replicates, data), replicates, data)
    torch.testing.assert_close(found.values, drawn.double()[None, ..., None])


POSTERIORS = {
    "small-vae": "iid",
    "small-vae[posterior=full-gaussian]": "iid",
    "small-vae[posterior=flow]": "iid",
    "small-vae[posterior=bernoulli]": "iid",
    "small-vae[posterior=categorical]": "iid",
    "gamma-poisson": "iid",
    "small-hierarchy[lower=gaussian,upper=gaussian,direction=top-down]": "iid",
    "small-hierarchy[lower=bernoulli,direction=top-down]": "iid",
    "small-hierarchy[lower=bernoulli,upper=gaussian,direction=top-down]": "iid",
    "waves[latent_dim=5]": "antithetic",
}


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("behind", [False, True])
def test_a_draw_from_q_is_found_in_an_estimates_noise(name, behind):
    """Also behind other noise of the same kind and size, and where two layers are of equal size."""
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, 3, 0)
    eta = problem.encoder(x).detach()
    q = problem.posterior(eta.expand(R, *eta.shape))
    how = drawing.rsample if reparameterizable(q) else drawing.draw
    draw = partial(how, q, S, POSTERIORS[name])
    torch.manual_seed(0)
    with RandomOperations() as seen:
        if behind:
            draw()
        z = draw()
    found = [noise_of(one, R, len(eta)) for one in seen.drawn]
    assert all(one is not None for one in found)
    torch.manual_seed(1)
    again = replayed(draw, found, R, len(eta))
    torch.testing.assert_close(again, z, rtol=1e-12, atol=1e-12)


def test_another_distribution_or_amount_is_no_draw_from_q():
    q = td.Bernoulli(P[0])
    _, found = noise(lambda: td.Bernoulli(0.9 * P[0]).sample((S,)))
    assert replayed(lambda: q.sample((S,)), found, R, B) is None
    _, found = noise(lambda: q.sample((S + 1,)))
    assert replayed(lambda: q.sample((S,)), found, R, B) is None
    _, found = noise(lambda: torch.rand(S, R, B, V))
    assert replayed(lambda: td.Normal(MEAN[0], STD[0]).rsample((S,)), found, R, B) is None
    assert replayed(lambda: torch.randn(S, R, B, V), [], R, B) is None
