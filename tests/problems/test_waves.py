"""The waves: their closed forms held against quadrature, enumeration, draws and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.problems import load_problem, waves
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target, UsageError, create
from elbograd.estimators.pieces.objective import whole_kl
from torch import distributions as td

KINDS = ("gaussian", "full-gaussian", "bernoulli", "categorical")
GAUSSIAN = KINDS[:2]
LARGE = "scale=50,offset=-500"
DRAWS, CHUNK = 400_000, 20_000


def named(kind, d, more="seed=1"):
    return f"waves[posterior={kind},latent_dim={d},{more}]"


def at(name, batch=3, dtype=torch.float64):
    problem = place(load_problem(name), dtype=dtype)
    x = first_batch(problem, batch, 0)
    with torch.no_grad():
        return problem, x, problem.encoder(x)


def without_the_closed_form(problem, x):
    target = problem.target(x)
    return Target(target.log_likelihood, target.prior)


def both_ways(name, batch=3):
    """Exact answers by the closed form and by what needs none."""
    problem, x, eta = at(name, batch)
    theta = list(problem.decoder.parameters())
    closed = exact_gradients(problem.posterior, eta, problem.target, x, theta)
    other = exact_gradients(problem.posterior, eta, lambda x: without_the_closed_form(problem, x), x, theta)
    assert not isinstance(closed, str)
    assert not isinstance(other, str), other
    assert closed.method == "closed-form"
    return closed, other


def assert_same(closed, other):
    for name in ("value", "eta_grad", "theta_grad"):
        found, expected = getattr(closed, name), getattr(other, name)
        assert float((found - expected).norm()) <= 1e-8 * float(expected.norm()), name
        assert bool(found.abs().min() > 0), name  # every part is there to be got wrong


# --- The closed forms ---


@pytest.mark.parametrize("more", ["seed=1", LARGE])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("kind", GAUSSIAN)
def test_the_closed_form_is_what_quadrature_says(kind, d, more):
    closed, other = both_ways(named(kind, d, more))
    assert other.method == "quadrature"
    assert_same(closed, other)


@pytest.mark.parametrize(
    ("kind", "d", "more"),
    [
        ("bernoulli", 1, "seed=1"),
        ("bernoulli", 4, LARGE),
        ("bernoulli", 8, "seed=2"),
        ("categorical", 1, "states=2"),
        ("categorical", 3, f"states=5,{LARGE}"),
        ("categorical", 4, "seed=2"),
    ],
)
def test_the_closed_form_is_what_enumeration_says(kind, d, more):
    closed, other = both_ways(named(kind, d, more))
    assert other.method == "enumeration"
    assert_same(closed, other)


def test_enumeration_by_hand():
    """One datum of two variables of three states, written out."""
    problem, x, eta = at(named("categorical", 2, "states=3"), 1)
    d = problem.decoder
    log_p = eta.reshape(2, 3).log_softmax(-1)
    mean = 0.0
    for i, j in itertools.product(range(3), repeat=2):
        v = torch.zeros(6, dtype=torch.float64)
        v[i] = v[3 + j] = 1
        off = v - d.centres @ x[0]
        phases = d.frequencies @ v + d.phases + d.tilts @ x[0]
        f = (d.amplitudes * phases.sin()).sum() - 0.5 * off @ d.curvature @ off
        mean = mean + (log_p[0, i] + log_p[1, j]).exp() * f
    torch.testing.assert_close(problem.target(x).expectation(problem.posterior(eta))[0], mean)


def z_score(problem, x, eta):
    """Of the mean of DRAWS values of log p(x|z) against the closed form; one datum."""
    q, target = problem.posterior(eta), problem.target(x)
    total = squares = 0.0
    for _ in range(DRAWS // CHUNK):
        if isinstance(q, td.MultivariateNormal):  # whose own sampling copies the factor for every draw
            noise = torch.randn(CHUNK, 1, problem.latent_dim, dtype=torch.float64)
            z = q.loc + noise @ q.scale_tril[0].T
        else:
            z = q.sample((CHUNK,))
        off = target.log_likelihood(z).squeeze(1).double() - problem.offset
        total, squares = total + off.sum(), squares + off.square().sum()
    mean = total / DRAWS
    error = ((squares / DRAWS - mean**2) / DRAWS).sqrt()
    return float((mean + problem.offset - target.expectation(q)[0]) / error)


@pytest.mark.parametrize("d", [5, 128])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_closed_form_is_the_mean_of_draws(kind, d):
    """Five standard errors: false alarms 6e-7 each."""
    torch.manual_seed(3)
    few = "states=2" if kind == "categorical" and d == 128 else "seed=1"
    assert abs(z_score(*at(named(kind, d, f"{few},{LARGE}"), 1))) < 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slip", ["no spread in the bowl", "sines not damped", "coordinates in reverse"])
@torch.no_grad()
def test_draws_tell_a_closed_form_that_is_wrong(kind, slip, monkeypatch):
    torch.manual_seed(3)
    problem, x, eta = at(named(kind, 5), 1)
    right = waves._MEAN_WAVES[kind]

    def moved(q, w):
        if slip == "coordinates in reverse":
            return right(q, w.flip(-1))
        whole = right(q, w)
        length = (whole[0].square() + whole[1].square()).sqrt()
        return tuple(part / length for part in whole)

    if slip == "no spread in the bowl":
        monkeypatch.setitem(waves._TRACES, kind, lambda q, a: torch.zeros(()))
    else:
        monkeypatch.setitem(waves._MEAN_WAVES, kind, moved)
    assert abs(z_score(problem, x, eta)) > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 5])
def test_gradients_are_finite_differences(kind, d):
    problem, x, eta = at(named(kind, d), 2)
    theta = list(problem.decoder.parameters())

    def elbo(eta, *_):
        q, target = problem.posterior(eta), problem.target(x)
        return target.expectation(q) - whole_kl(q, target)

    assert torch.autograd.gradcheck(elbo, (eta.requires_grad_(), *theta))


# --- What it is for ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 4, 8, 128])
def test_exact_in_any_dimension(kind, d):
    problem, x, eta = at(named(kind, d))
    theta = list(problem.decoder.parameters())
    answer = exact_gradients(problem.posterior, eta, problem.target, x, theta)
    assert answer.method == "closed-form"
    whole = torch.cat((answer.value, answer.eta_grad.flatten(), answer.theta_grad))
    assert bool(whole.isfinite().all())
    estimate = create("exact")(problem.posterior(eta.requires_grad_()), problem.target(x), 1)
    torch.testing.assert_close(estimate.value.detach(), answer.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_costs_can_have_the_size_of_a_real_models(kind, seed):
    problem, x, eta = at(named(kind, 6, f"seed={seed},{LARGE}"), 30)
    torch.manual_seed(0)
    f = problem.target(x).log_likelihood(problem.posterior(eta).sample((2000,)))
    assert -600 < float(f.mean()) < -400
    assert 25 < float(f.std(0).mean()) < 75
    assert float(f.max()) < -50  # a clamp of the cost at 50 nats leaves nothing of it


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_two_coordinates_are_alike(kind):
    problem, x, eta = at(named(kind, 5))
    z = (
        problem.posterior(eta).sample((1,))
        if kind != "bernoulli"
        else torch.tensor([1.0, 0, 1, 1, 0]).double()
    )
    z = z.expand(1, 3, *z.shape[2:]) if kind != "bernoulli" else z.expand(1, 3, 5)
    f = problem.target(x).log_likelihood
    for i, j in itertools.combinations(range(5), 2):
        order = list(range(5))
        order[i], order[j] = j, i
        swapped = z[:, :, order]
        same = (swapped == z).flatten(2).all(-1)
        assert bool(((f(z) - f(swapped)).abs() > 1e-4)[~same].all())
        assert kind not in GAUSSIAN or not same.any()
    assert float(problem.decoder.curvature.fill_diagonal_(1).abs().min()) > 0


@pytest.mark.parametrize("kind", GAUSSIAN)
@pytest.mark.parametrize("d", [1, 4, 128])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_scales_begin_apart_from_each_other_and_from_where_slips_hide(kind, d, seed):
    problem, _, eta = at(named(kind, d, f"seed={seed}"), 300)
    scales = eta[:, problem.eta_parts["log_scale"]].exp()
    for blind in (1.0, math.sqrt(0.5)):
        assert float((scales / blind).log().abs().min()) > 0.15
    assert float(scales.std(0).min()) > 1e-3  # over the data
    assert len(scales[0].unique()) == d
    assert "tril" in problem.eta_parts or kind == "gaussian" or d == 1


# --- A problem like others ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 128])
@pytest.mark.parametrize("batch", [1, 256])
def test_float32_and_batches_of_any_size(kind, d, batch):
    problem, x, eta = at(named(kind, d, LARGE), batch, torch.float32)
    target = problem.target(x)
    for leading in ((batch,), (2, batch)):
        q = problem.posterior(eta.expand(*leading, -1))
        assert target.expectation(q).shape == leading
        f = target.log_likelihood(q.sample((3,)))
        assert f.shape == (3, *leading)
        assert f.dtype == target.expectation(q).dtype == torch.float32
    exact, x64, _ = at(named(kind, d, LARGE), batch)
    found, expected = (
        p.target(data).expectation(p.posterior(e))
        for p, data, e in ((problem, x, eta), (exact, x64, eta.double()))
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_is_all_that_it_depends_on(kind):
    state = torch.get_rng_state()
    one, same, other = (load_problem(named(kind, 3, f"seed={seed}")) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in one.decoder.state_dict().items():
        assert torch.equal(tensor, same.decoder.state_dict()[name])
        assert name == "amplitudes" or not torch.equal(tensor, other.decoder.state_dict()[name])


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ("posterior=flow", "posterior='flow' is not one of gaussian, full-gaussian, bernoulli, categorical"),
        ("latent_dim=0", "latent_dim=0 is not a positive integer"),
        ("states=3", "states=3 is of posterior=categorical, not of gaussian"),
        ("posterior=categorical,states=1", "states=1 is not an integer of 2 or more"),
        ("scale=0", "scale=0 is not positive"),
        ("offset=low", "offset='low' is not a number"),
        ("seed=-1", "seed=-1 is not an integer of 0 or more"),
    ],
)
def test_bad_arguments_are_told_in_one_line(parameters, line):
    with pytest.raises(UsageError) as told:
        load_problem(f"waves[{parameters}]")
    assert line in str(told.value)
    assert "\n" not in str(told.value)
