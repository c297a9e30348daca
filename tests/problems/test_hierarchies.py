"""Problems of two layers: exact answers by algebra, quadrature and enumeration, written anew, and certificates."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.certification import looks
from elbograd.benchmarks.certification.cell import certify_cell
from elbograd.benchmarks.certification.corners import Corner
from elbograd.benchmarks.certification.levels import Settings
from elbograd.benchmarks.certification.oracle import solve
from elbograd.benchmarks.certification.points import points_of
from elbograd.benchmarks.certification.subject import warmed
from elbograd.benchmarks.gradients import seeded
from elbograd.benchmarks.oracles.objectives import exact_with_method
from elbograd.benchmarks.oracles.references import whole_reference
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Estimate, Layered, UsageError, create
from elbograd.estimators.methods.reparameterization import Reparameterization
from elbograd.estimators.posteriors import affine
from elbograd.estimators.posteriors.noise import log_prob, rsample
from torch import distributions as td

GAUSSIAN = [f"two-layer-gaussian[direction={d}]" for d in ("bottom-up", "top-down")]
SMALL = [
    f"small-hierarchy[lower={lower},upper={upper},direction={d}]"
    for lower, upper, d in itertools.product(
        ("gaussian", "bernoulli"), ("gaussian", "bernoulli"), ("bottom-up", "top-down")
    )
]


def loaded(name, data=3):
    problem = place(load_problem(name), dtype=torch.float64)
    return problem, first_batch(problem, data, 0)


def all_gradients(value, problem):
    leaves = [*problem.encoder.parameters(), *problem.decoder.parameters()]
    return torch.autograd.grad(value.sum(), leaves, retain_graph=True, materialize_grads=True)


def assert_same(found, expected, problem, **tolerances):
    torch.testing.assert_close(found, expected, **tolerances)
    for a, b in zip(all_gradients(found, problem), all_gradients(expected, problem), strict=True):
        torch.testing.assert_close(a, b, **tolerances)


# --- Gaussian: algebra of this file's own, by the whole covariance ---


def joint(first, second, loc, scale, weight, bias, spread):
    """N of (z¹, z²), the root first or last, as one covariance: (mean, covariance)."""
    mean2 = loc @ weight.T + bias
    root = torch.diag_embed(scale.square())
    cross = root @ weight.T
    lower = weight @ cross + torch.diag_embed(spread.square().expand_as(mean2))
    parts = {first: (loc, root, cross), second: (mean2, lower, cross.mT)}
    mean = torch.cat([parts[name][0] for name in ("z1", "z2")], -1)
    rows = []
    for name in ("z1", "z2"):
        own, across = parts[name][1], parts[name][2]
        rows.append(torch.cat((own, across) if name == "z1" else (across, own), -1))
    return mean, torch.cat(rows, -2)


def elbo_by_covariance(problem, x):
    e, d, n = problem.encoder, problem.decoder, problem.latent_dim
    loc, log_scale = e.lower(x).chunk(2, -1)
    if problem.direction == "bottom-up":
        mean, cov = joint(
            "z1", "z2", loc, log_scale.exp(), e.between.weight, e.between.bias, e.log_scale.exp()
        )
    else:
        scale = log_scale.exp()
        mean, cov = joint("z2", "z1", loc[:, n:], scale[:, n:], e.between.weight, loc[:, :n], scale[:, :n])
    zero, one = torch.zeros(1, problem.upper_dim).double(), torch.ones(1, problem.upper_dim).double()
    prior = joint("z2", "z1", zero, one, d.between.weight, d.between.bias, d.log_scale.exp())
    q = td.MultivariateNormal(mean, cov)
    p = td.MultivariateNormal(prior[0].expand_as(mean), prior[1].expand_as(cov))
    of_x = td.MultivariateNormal(
        mean[:, :n] @ d.lower.weight.T + d.lower.bias, problem.noise**2 * torch.eye(x.shape[1]).double()
    )
    spread = (d.lower.weight @ cov[:, :n, :n] @ d.lower.weight.T).diagonal(dim1=-2, dim2=-1).sum(-1)
    return of_x.log_prob(x) - 0.5 * spread / problem.noise**2 - td.kl_divergence(q, p)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_gaussian_elbo_is_algebra(name):
    problem, x = loaded(name, 4)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    found, method = exact_with_method(q, target)
    assert method == "closed-form"
    expected = elbo_by_covariance(problem, x)
    assert_same(found, expected, problem, rtol=1e-9, atol=1e-9)
    assert_same(create("exact")(q, target, 1).value, expected, problem, rtol=1e-9, atol=1e-9)
    reference = whole_reference(problem, x)
    assert reference.kind == "closed-form"
    assert set(reference.mean) == {n for n, _ in problem.encoder.named_parameters()}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_kl_of_each_latent_is_that_of_quadrature(name):
    problem, x = loaded(f"{name[:-1]},latent_dim=1,upper_dim=1,data_dim=2]")
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    plain = Layered(
        {n: layer if isinstance(layer, td.Distribution) else _hidden(layer) for n, layer in q.layers.items()}
    )
    assert affine.kls(plain, target.prior) is None
    found, method = exact_with_method(plain, target)
    assert method == "quadrature"
    assert_same(found, exact_with_method(q, target)[0], problem, rtol=1e-6, atol=1e-7)
    weighted = replace(target, kl_weight={"z1": 0.3, "z2": 2.0})
    by_algebra = create("exact")(q, weighted, 1).value
    divergences = affine.kls(q, target.prior)
    expected = target.expectation(q) - 0.3 * divergences["z1"] - 2 * divergences["z2"]
    assert_same(by_algebra, expected, problem)


def _hidden(layer):
    """The same conditional as a function that does not say what it is."""
    (parent,) = layer.parents
    return eval(f"lambda {parent}: given({parent}={parent})", {"given": layer})


# --- Small: nested loops over Gauss-Hermite points and bits ---


def points_of_latent(family, numbers):
    """(value, log density, weight) of every point of one latent given its two numbers, all attached."""
    if family == "bernoulli":
        for bits in itertools.product((0.0, 1.0), repeat=2):
            z = torch.tensor(bits, dtype=torch.float64)
            log = (
                z * torch.nn.functional.logsigmoid(numbers)
                + (1 - z) * torch.nn.functional.logsigmoid(-numbers)
            ).sum()
            yield z, log, log.exp()
        return
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        if weight < 1e-14:
            continue
        z = (numbers[0] + numbers[1].exp() * node).reshape(1)
        yield z, log_density("gaussian", z, numbers), torch.tensor(weight)


def log_density(family, z, numbers):
    if family == "bernoulli":
        return td.Bernoulli(logits=numbers).log_prob(z).sum()
    return (
        -0.5 * ((z - numbers[0]) / numbers[1].exp()) ** 2 - numbers[1] - 0.5 * math.log(2 * math.pi)
    ).sum()


def elbo_by_loops(problem, x):
    """Of one datum."""
    (eta,) = problem.encoder(x)
    first, second = ("z1", "z2") if problem.direction == "bottom-up" else ("z2", "z1")
    d, total = problem.decoder, 0.0
    for a, log_a, weight_a in points_of_latent(problem.families[first], eta[:2]):
        numbers = eta[2:] + problem.encoder.between(a)
        for b, log_b, weight_b in points_of_latent(problem.families[second], numbers):
            z = {first: a, second: b}
            log_p = log_density(problem.families["z2"], z["z2"], d.root)
            log_p = log_p + log_density(problem.families["z1"], z["z1"], d.between(z["z2"]))
            residual = (x[0] - d.lower(z["z1"])) / 0.7
            log_x = (-0.5 * residual**2 - math.log(0.7 * math.sqrt(2 * math.pi))).sum()
            total = total + weight_a * weight_b * (log_x + log_p - log_a - log_b)
    return total.reshape(1)


@pytest.mark.parametrize("name", [n for n in SMALL if "lower=gaussian,upper=gaussian" not in n])
def test_the_small_elbo_is_a_sum(name):
    problem, x = loaded(name, 1)
    found, method = exact_with_method(problem.posterior(problem.encoder(x)), problem.target(x))
    assert method == ("quadrature" if "gaussian" in name else "enumeration")
    assert_same(found, elbo_by_loops(problem, x), problem, rtol=1e-6, atol=1e-7)


# --- Estimators against the exact answers ---

CERTIFIED = [
    ("small-hierarchy[lower=bernoulli]", "leave-one-out[kl=sampled]", 2),
    ("small-hierarchy[lower=bernoulli,upper=gaussian,direction=top-down]", "score-function", 1),
    ("two-layer-gaussian[direction=top-down,latent_dim=1,upper_dim=1,data_dim=2]", "reparameterization", 1),
    ("small-hierarchy[lower=gaussian,upper=gaussian]", "sticking-the-landing", 1),
]


def judged(estimator, name, num_samples, monkeypatch):
    """The checks at where the encoder puts η, of 4,096 estimates, and as many more to confirm."""
    monkeypatch.setattr(looks, "_LEAST_WORK", 0)
    problem, x = loaded(name)
    eta = problem.encoder(x).detach()
    oracle = solve(problem, "initial", x, eta, estimator().objective, num_samples)
    settings = Settings(confirm_level=1e-2, max_evaluations=4096 * 3 * num_samples)
    with seeded(0, x.device):
        warm = partial(warmed, estimator, oracle, num_samples, settings.seed)
        corner = Corner(num_samples, len(x))
        return {c.name: c for c in certify_cell(warm, oracle, corner, name, oracle.norm, settings)}


@pytest.mark.parametrize(("name", "spec", "num_samples"), CERTIFIED)
def test_right_estimators_hold_in_all_of_phi(name, spec, num_samples, monkeypatch):
    """Each check raises a false alarm at 1e-5: a look at 1e-3, confirmed at 1e-2."""
    checks = judged(partial(create, spec), name, num_samples, monkeypatch)
    assert set(checks) >= {"gradient", "phi", "value", "theta"}
    assert not any(check.holds is False for check in checks.values())
    assert ("variance" in checks) == (not spec.startswith("leave-one-out"))


class CutsAll(Reparameterization):
    """log q cut out of the gradient altogether, z included: the entropy is lost."""

    def forward(self, q, target, num_samples):
        z, noise = rsample(q, num_samples)
        density = log_prob(q, z, noise).detach()
        elbo = (target.log_likelihood(z) + target.prior.log_prob(z) - density).mean(0)
        return Estimate(elbo, elbo)


class ForgetsALayer(Reparameterization):
    """log q of the first latent alone."""

    def forward(self, q, target, num_samples):
        z, _ = rsample(q, num_samples)
        log_q = q.log_probs(z)["z1"]
        elbo = (target.log_likelihood(z) + target.prior.log_prob(z) - log_q).mean(0)
        return Estimate(elbo, elbo)


class IgnoresConditionals(Reparameterization):
    """A right gradient in η, and none in the parameters that the conditional's network holds."""

    def forward(self, q, target, num_samples):
        z, noise = rsample(q, num_samples)
        elbo = (target.log_likelihood(z) + target.prior.log_prob(z) - log_prob(q, z, noise)).mean(0)
        eta = q.layers["z1"].base_dist
        slope = torch.autograd.grad(elbo.sum(), (eta.loc, eta.scale), retain_graph=True)
        surrogate = sum((p * g.detach()).sum(-1) for p, g in zip((eta.loc, eta.scale), slope, strict=True))
        return Estimate(elbo, elbo)._replace(surrogate=surrogate)


@pytest.mark.parametrize(
    ("wrong", "check"),
    [(CutsAll, "gradient"), (ForgetsALayer, "value"), (IgnoresConditionals, "phi")],
)
def test_wrong_ones_fail(wrong, check, monkeypatch):
    name = "two-layer-gaussian[latent_dim=1,upper_dim=1,data_dim=2]"
    found = judged(partial(wrong, "sampled"), name, 1, monkeypatch)
    assert found[check].holds is False
    if wrong is IgnoresConditionals:
        assert "gradient in between." in found["phi"].reason
        assert "which the posterior holds, is" in found["phi"].reason
        assert found["gradient"].holds is not False


# --- Exact variances ---


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("small-hierarchy[lower=bernoulli,direction=top-down]", "score-function[kl=sampled]"),
        ("small-hierarchy[direction=top-down]", "constant-baseline[value=-1.0]"),
        ("two-layer-gaussian[direction=top-down,latent_dim=1,upper_dim=1,data_dim=2]", "reparameterization"),
        ("two-layer-gaussian[latent_dim=2,upper_dim=1,data_dim=2]", "sticking-the-landing"),
    ],
)
def test_exact_variances_are_those_of_many_draws(name, spec):
    """40,000 estimates: 6 standard errors of the sample variance, from its own fourth moment; 1e-7 in all."""
    problem, x = loaded(name, 2)
    estimator, target = create(spec), problem.target(x)
    eta = problem.encoder(x).detach()
    exact = exact_variance(estimator, problem.posterior, eta, target, 2)
    leaf = eta.expand(40_000, *eta.shape).clone().requires_grad_()
    torch.manual_seed(0)
    estimate = estimator(problem.posterior(leaf), target, 2)
    (h,) = torch.autograd.grad(estimate.surrogate.sum(), leaf)
    squares = (h - h.mean(0)).square()
    error = squares.std(0) / 200
    assert bool(((squares.mean(0) - exact).abs() <= 6 * error + 1e-9).all())
    assert bool((exact > 0).all())


def test_the_variance_of_the_linear_path_is_a_formula():
    """z¹ = μ + σ ε₁ with f quadratic: Var ∂μ of the path, by hand, in the bottom-up direction."""
    problem, x = loaded("two-layer-gaussian[latent_dim=1,upper_dim=1,data_dim=1]", 1)
    e, d = problem.encoder, problem.decoder
    eta = e(x).detach()
    found = exact_variance(
        create("reparameterization[kl=sampled]"), problem.posterior, eta, problem.target(x), 1
    )
    s1, s2 = eta[0, 1].exp(), e.log_scale.exp()[0]
    u, a, r, w = e.between.weight[0, 0], d.between.weight[0, 0], d.log_scale.exp()[0], d.lower.weight[0, 0]
    # d/dμ of −½(x − wz¹ − b)² − ½ z²² − ½ (z¹ − a z² − a₀)²/r², z² = u z¹ + d + s₂ ε₂; log q has no part in it.
    curvature = w**2 + u**2 + (1 - a * u) ** 2 / r**2
    of_noise = u - (1 - a * u) * a / r**2
    torch.testing.assert_close(found[0, 0], (curvature**2 * s1**2 + of_noise**2 * s2**2).detach())


# --- In the suite ---


@pytest.mark.parametrize("name", [SMALL[3]])
def test_they_are_measured_and_trained(name):
    problem = load_problem(name)
    x = first_batch(problem, 3, 0)
    found = measure_variance(problem, "leave-one-out[kl=sampled]", x, num_samples=2, replicates=60)
    assert found.route == "full"
    assert all(bool(v.isfinite().all()) for v in found.per_parameter.values())
    run = train(name, "leave-one-out[kl=sampled]", steps=2, num_samples=2)
    assert all(math.isfinite(point.heldout_objective) for point in run.history)
    points = points_of(*loaded(name), 0)
    assert set(points) >= {"initial", "middle"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("two-layer-gaussian[direction=sideways]", "direction"),
        ("two-layer-gaussian[upper_dim=0]", "upper_dim"),
        ("two-layer-gaussian[noise=0.0]", "noise"),
        ("small-hierarchy[lower=gamma]", "lower"),
    ],
)
def test_a_wrong_parameter_is_told_in_a_line(given, words):
    with pytest.raises(UsageError, match=words) as told:
        load_problem(given)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [SMALL[1], SMALL[3]])
@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (("z1",), None),
        ("z1", None),  # not the letters of it
        (("z1", "z2"), None),
        (("z2",), "reads z2 (Target.reads), and log_likelihood changes with z1"),
        (("z3",), "reads 'z3', which is none of the latents z1, z2"),
    ],
)
def test_latents_that_are_read_though_it_was_denied_are_told(name, reads, words):
    problem = load_problem(name)
    x, target = first_batch(problem, 3, 0), problem.target
    problem.target = lambda x: replace(target(x), reads=reads)
    measures = partial(measure_variance, problem, "leave-one-out[kl=sampled]", x, num_samples=2)
    if words is None:
        assert measures(replicates=20).total > 0
        return
    with pytest.raises(UsageError, match=re.escape(words)) as told:
        measures(replicates=20)
    assert "\n" not in str(told.value)
