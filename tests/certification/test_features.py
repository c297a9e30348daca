"""Features have the means that they are said to have, and hide nothing of what an estimator does wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from elbograd.benchmarks.certification import looks as looks_module
from elbograd.benchmarks.certification.adjustment import Adjustment, fitted, fitted_by_coordinate
from elbograd.benchmarks.certification.basis import Basis, cuts_of
from elbograd.benchmarks.certification.corners import Corner
from elbograd.benchmarks.certification.features import Features
from elbograd.benchmarks.certification.integrand_features import integrand_features, theta_controls
from elbograd.benchmarks.certification.levels import Settings
from elbograd.benchmarks.certification.noise import Noise, noise_of
from elbograd.benchmarks.certification.noise_features import noise_features
from elbograd.benchmarks.certification.oracle import solve
from elbograd.benchmarks.certification.subject import Subject, warmed
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Estimate, Estimator, create
from torch import distributions as td

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

FAR = 5.5  # standard errors: 4e-8 each, so that 1e4 features raise a false alarm at 4e-4


@cache
def oracle(name, objective="elbo", num_samples=2):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, 3, 0)
    return solve(problem, "initial", x, problem.encoder(x).detach(), objective, num_samples)


def subject(build, name, num_samples=2, dtype="float64", settings=Settings()):  # noqa: B008
    here = oracle(name, num_samples=num_samples)
    build = partial(create, build) if isinstance(build, str) else build
    corner = Corner(num_samples, 3, dtype)
    made = warmed(build, here, num_samples, 0)
    return Subject(made, here.at(3, dtype), corner, here.norm, settings, claims=True)


# --- Functions of one number, integrated exactly ---


def nodes(kind):
    """Points and weights of a rule that is exact for the kind, (n,), or all that can be drawn."""
    if kind == "normal":
        x, w = np.polynomial.hermite_e.hermegauss(12)
        return x, w / math.sqrt(2 * math.pi)
    if kind == "uniform":
        x, w = np.polynomial.legendre.leggauss(12)
        return (x + 1) / 2, w / 2
    # √(2e) has a density r exp(−r²/2): the trapezoid rule.
    r = np.linspace(0, 14, 40_001)
    w = r * np.exp(-(r**2) / 2) * (r[1] - r[0])
    return r**2 / 2, w


def flat(values, parameter=None):
    """One number of many samples: (L, 1, 1, 1)."""
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("kind", ["normal", "uniform", "exponential"])
def test_functions_of_a_number_are_orthonormal(kind):
    x, w = nodes(kind)
    found = torch.stack([v.flatten() for v in Basis([Noise(kind, flat(x))]).values()])
    assert len(found) == 4
    weights = torch.as_tensor(w, dtype=torch.float64)
    torch.testing.assert_close(found @ weights, torch.zeros(4).double(), rtol=0, atol=1e-6)
    gram = (found * weights) @ found.T
    torch.testing.assert_close(gram, torch.eye(4).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [0.5, 0.03, 0.0, 1.0])
def test_a_bit_has_mean_zero_whatever_its_probability(p):
    noise = Noise("bits", flat([0.0, 1.0]), torch.full((2, 1, 1, 1), p, dtype=torch.float64))
    (value,) = Basis([noise]).values()
    assert float((value.flatten() * torch.tensor([1 - p, p], dtype=torch.float64)).sum()) == pytest.approx(
        0, abs=1e-12
    )


def test_products_of_states_have_mean_zero():
    """Of two numbers of three states each, all eight products, by enumeration."""
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], dtype=torch.float64)
    pairs = list(itertools.product(range(3), repeat=2))
    values = torch.tensor(pairs).double().reshape(9, 1, 1, 2)
    weights = torch.outer(*probs).flatten()
    basis = Basis([Noise("states", values, probs.reshape(1, 1, 1, 2, 3))])
    found = torch.stack([v.flatten() for v in basis.values()])
    assert len(found) == 8
    assert torch.linalg.matrix_rank(found) == 8
    torch.testing.assert_close(found @ weights, torch.zeros(8).double(), rtol=0, atol=1e-14)


def test_pairs_of_samples_have_mean_zero_by_enumeration():
    """Three samples of two bits: every feature over all 64 tuples."""
    p = torch.tensor([0.3, 0.8], dtype=torch.float64)
    tuples = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().reshape(64, 3, 1, 2)
    values = tuples.movedim(0, 1)  # (L, R, B, V): every tuple a replicate
    parameter = p.expand(3, 64, 1, 2)
    weights = torch.where(values == 1, parameter, 1 - parameter).prod(-1).prod(0).flatten()
    found = noise_features([Noise("bits", values, parameter)], 64, torch.zeros(1, 2).double())
    assert found.values.shape[-1] == 3 + 6
    assert not found.means.any()
    mean = (weights @ found.values[:, 0]).abs().max()
    assert float(mean) < 1e-14


@pytest.mark.parametrize("p", [0.2, 0.5, 0.93])
def test_functions_of_the_pieces_of_a_uniform_number_have_mean_zero(p):
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    basis = Basis([Noise("uniform", flat(u))], {1: torch.tensor([[p]], dtype=torch.float64)})
    assert len(basis) == 5
    means = torch.stack([value.mean() for value in basis.values()])
    torch.testing.assert_close(means, torch.zeros(5).double(), rtol=0, atol=1e-5)


def test_the_bits_of_a_stick_are_cut_where_they_decide():
    q = td.Independent(td.OneHotCategorical(torch.tensor([[[0.5, 0.2, 0.3]]])), 1)
    (sticks,) = cuts_of(q).values()
    torch.testing.assert_close(sticks, torch.tensor([[0.2, 0.3 / 0.8]]).double(), rtol=1e-6, atol=0)
    assert cuts_of(td.Independent(td.Normal(torch.zeros(1, 2), 1.0), 1)) == {}


def test_what_is_made_of_the_same_features_in_every_coordinate_is_found_where_a_coordinate_hardly_moves():
    """h = c − d in each of three coordinates; in the last both are the same in all draws but a few."""
    generator = torch.Generator().manual_seed(0)
    c, d = (torch.randn(500, 1, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    d[2:, :, 2] = c[2:, :, 2]
    values = torch.cat((c, d, c + d), -1)
    value = c.sum(-1, keepdim=True)
    values = torch.cat((values, value), -1)
    features = Features(values, torch.zeros(1, 10).double(), ((0, 3, 6),), ((9,),))
    columns = torch.cat((c - d, value), -1)
    beta, the_same = fitted_by_coordinate(columns, features, 1, 1e-13)
    assert the_same
    assert float(Adjustment(beta)(columns, features).abs().max()) < 1e-12
    rare = columns.clone(), values.clone()
    rare[0][..., 2], rare[1][..., 5] = 5.0, rare[1][..., 2] - 5.0
    rare[1][..., 8] = rare[1][..., 2] + rare[1][..., 5]
    left = Adjustment(beta)(rare[0], features._replace(values=rare[1]))
    assert float(left[..., 2].abs().max()) < 1e-12


# --- Features of an estimate, by a test of their means ---


def drawn(here, count):
    """Features of so many estimates: of the integrand, and of the noise."""
    _, operations = here.draw(count)
    noise = [one for one in (noise_of(o, count, 3) for o in operations) if one is not None]
    like = here.oracle.eta_grad
    return integrand_features(noise, here.known, count, like), noise_features(noise, count, like)


PLACES = [
    ("small-vae", "reparameterization", 1),
    ("small-vae", "leave-one-out", 3),
    ("small-vae[posterior=full-gaussian]", "reparameterization", 2),
    ("small-vae[posterior=flow]", "reparameterization[kl=sampled]", 2),
    ("small-vae[posterior=bernoulli]", "leave-one-out", 3),
    ("small-vae[posterior=categorical]", "leave-one-out", 2),
    ("small-vae[kl_weight=0.5]", "reparameterization", 2),
    ("gamma-poisson", "reparameterization", 2),
    ("small-hierarchy[lower=bernoulli,direction=top-down]", "leave-one-out[kl=sampled]", 2),
    (
        "small-hierarchy[lower=gaussian,upper=gaussian,direction=top-down]",
        "reparameterization[kl=sampled]",
        2,
    ),
]


@pytest.mark.parametrize(("name", "spec", "num_samples"), PLACES)
def test_every_feature_has_the_mean_that_it_is_said_to_have(name, spec, num_samples):
    """None is as far off as `FAR` of its own standard errors; that of the wrong mean is."""
    here = subject(spec, name, num_samples)
    torch.manual_seed(0)
    parts = drawn(here, 4000)
    assert parts[0].values.shape[-1] >= 5  # q's own draw was found again
    for features in parts:
        off, spread = features.centred.mean(0), features.centred.std(0) / math.sqrt(4000)
        size = features.values.square().mean(0).sqrt()
        assert bool((off.abs() <= FAR * spread + 1e-6 * size).all())
    moved = parts[0]._replace(means=parts[0].means + 0.5 * parts[0].values.std(0))
    off = moved.centred.mean(0).abs() / (moved.values.std(0) / math.sqrt(4000) + 1e-300)
    assert bool((off[parts[0].values.std(0) > 1e-9] > FAR).all())


@pytest.mark.parametrize(("name", "spec", "num_samples"), [*PLACES, ("small-vae", "iwae", 2)])
def test_a_feature_that_is_needed_is_the_same_without_the_others(name, spec, num_samples):
    here = subject(spec, name, num_samples)
    torch.manual_seed(0)
    _, operations = here.draw(3)
    noise = [one for one in (noise_of(o, 3, 3) for o in operations) if one is not None]
    whole = integrand_features(noise, here.known, 3, here.oracle.eta_grad)
    left_out = 0
    for index in range(whole.values.shape[-1]):
        needed = torch.arange(whole.values.shape[-1]) == index
        found = integrand_features(noise, here.known, 3, here.oracle.eta_grad, needed)
        assert (found.sets, found.scalars) == (whole.sets, whole.scalars)
        assert torch.equal(found.means, whole.means)
        torch.testing.assert_close(found.values[..., index], whole.values[..., index])
        left_out += bool((found.values == 0).all(0).all(0).any())
    assert left_out


@pytest.mark.parametrize(
    ("problem", "controls"),
    [("small-vae", 2), ("small-hierarchy[lower=gaussian,upper=gaussian,direction=top-down]", 3)],
)
def test_controls_in_theta_have_mean_zero(problem, controls):
    here = subject("reparameterization", problem, 2)
    found = []
    torch.manual_seed(0)
    for _ in range(40):
        _, operations = here.draw(20)
        noise = [one for one in (noise_of(o, 20, 3) for o in operations) if one is not None]
        found.append(torch.stack(theta_controls(noise, here.known, 20)))
        for which, control in enumerate(found[-1]):
            assert torch.equal(theta_controls(noise, here.known, 20, only=which)[0], control)
    values = torch.stack(found)
    assert values.shape[1] == controls
    z = values.mean(0) / (values.std(0) / math.sqrt(len(values)) + 1e-12)
    assert float(z.abs().max()) < FAR


def test_fitting_leaves_the_mean_where_it_is_and_takes_the_noise():
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(8000, 2, 3, generator=generator, dtype=torch.float64)
    h = 0.3 + c @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.01 * torch.randn(8000, 2, 1).double()
    features = Features(c, torch.zeros(2, 3).double())
    beta = fitted(h[:2000], Features(c[:2000], features.means), 2)
    left = Adjustment(beta)(h[2000:], Features(c[2000:], features.means))
    assert float(left.std()) < 0.011
    assert float((left.mean() - 0.3).abs()) < FAR * 0.01 / math.sqrt(12_000)


# --- What is wrong shows in the adjusted mean ---


class Pathwise(Estimator):
    """Reparameterization, with one thing of it that may be wrong."""

    derivatives = 1
    power, kl, weight = 1.0, 1.0, 1.0

    def forward(self, q, target, num_samples):
        loc, scale = q.base_dist.loc, q.base_dist.scale
        z = loc + scale**self.power * torch.randn(num_samples, *loc.shape, dtype=loc.dtype)
        kl = td.kl_divergence(q, target.prior.expand(q.batch_shape))
        elbo = self.weight * target.log_likelihood(z).mean(0) - self.kl * kl
        return Estimate(elbo, elbo)


def wrong(**attributes):
    return type("Wrong", (Pathwise,), attributes)


def rejected(build, num_samples=1):
    """Names of the checks that fail."""
    own = Settings(tolerance=0.01, confirm_level=1e-4, max_evaluations=1)
    here = subject(build, "small-vae", num_samples, settings=own)
    outcome = looks_module.sample(here, float("inf"))
    return {name for name, (holds, _) in outcome.verdicts.items() if holds is False}


@pytest.mark.parametrize(
    ("attributes", "failing"),
    [
        ({}, set()),
        ({"power": 1.02}, {"gradient", "value"}),
        ({"kl": 1.01}, {"gradient", "value"}),
    ],
)
def test_a_slip_of_a_hundredth_shows(attributes, failing):
    found = rejected(wrong(**attributes))
    assert bool(found) == bool(failing)
    assert not failing or found & failing


class DrawsMore(Pathwise):
    """Right, and of its calls every other one draws one number more."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, q, target, num_samples):
        self.calls += 1
        if self.calls % 2:
            torch.rand(())
        return super().forward(q, target, num_samples)


@pytest.mark.parametrize(("build", "tries"), [(Pathwise, [True]), (DrawsMore, [True, False])])
def test_what_draws_otherwise_from_call_to_call_is_not_compared_with_its_noise(build, tries, monkeypatch):
    tried = []
    whole = looks_module.Looks

    def watched(subject, followed):
        tried.append(followed)
        return whole(subject, followed)

    monkeypatch.setattr(looks_module, "Looks", watched)
    assert rejected(build) == set()
    assert tried == tries


def test_features_take_the_noise_away():
    """The bound of a right estimator with them is a fraction of that without."""

    def bound(followed):
        here = subject(Pathwise, "small-vae", 2, settings=Settings(max_evaluations=1))
        return looks_module.Looks(here, followed).run(0.0).bias.high

    assert bound(True) < 0.3 * bound(False)


def test_no_features_where_the_posterior_would_not_draw_from_the_noise():
    here = subject(Pathwise, "small-vae", 2)
    like, known = here.oracle.eta_grad, here.known
    other = [Noise("uniform", torch.rand(2, 7, 3, 2).double())]
    assert integrand_features(other, known, 7, like).values.shape == (7, 3, 0)
    assert integrand_features([], known, 7, like).values.shape == (7, 3, 0)
    assert integrand_features(other, None, 7, like).values.shape == (7, 3, 0)
    assert noise_features([], 7, like).values.shape == (7, 3, 0)
    assert integrand_features(other, replace(known, draws="antithetic"), 7, like).values.shape == (7, 3, 0)
