"""Exact moments of estimates of discrete latents: against exact gradients, simulation and published numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from elbograd.benchmarks.oracles import discrete_moments as module
from elbograd.benchmarks.oracles.discrete_moments import Moments, discrete_moments
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import create

UNBIASED = (
    "local-expectation",
    "bit-flip",
    "arm",
    "disarm",
    "disarm[kl=sampled]",
    "arms",
    "carms",
    "unordered-set",
    "sum-and-sample",
    "sum-and-sample[summed=drawn]",
    "muprop",
    "muprop[kl=sampled]",
    "double-control-variate[alpha=-0.7]",
    "vimco",
    "vimco[mean=arithmetic]",
)
BIASED = (
    "straight-through[temperature=0.7]",
    "reinmax[temperature=1.3]",
    "reinmax[kl=sampled]",
    "gapped-straight-through[temperature=0.6,gap=2]",
    "straight-through-gumbel-softmax[temperature=0.6]",
    "straight-through-gumbel-softmax[temperature=2,backward_temperature=0.4]",
    "gumbel-rao[temperature=0.3,inner_samples=3]",
)
PROBLEMS = ("small-vae[posterior=bernoulli]", "small-vae[posterior=categorical]", "categorical-toy")
DRAWS = 20_000


@dataclass
class Place:
    """A problem at logits that are moved away from where its encoder puts them."""

    problem: object
    x: torch.Tensor
    eta: torch.Tensor

    @property
    def target(self):
        return self.problem.target(self.x)

    def exact(self, objective, num_samples):
        found = exact_gradients(
            self.problem.posterior, self.eta, self.problem.target, self.x, [], objective, num_samples
        )
        return found.eta_grad

    def moments(self, estimator, num_samples):
        return discrete_moments(estimator, self.problem.posterior, self.eta, self.target, num_samples)


def place_of(name):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, 2 if "vae" in name else 1, 0)
    return Place(problem, x, 1.7 * problem.encoder(x).detach() + 0.3)


def cases(specs, first_of=None):
    """Specification, problem and S, where the estimator can be used: S of 1 to 4, or the first of these."""
    found = []
    for spec, name in itertools.product(specs, PROBLEMS):
        at, estimator = place_of(name), create(spec)
        q = at.problem.posterior(at.eta)
        sizes = [s for s in first_of or (1, 2, 3, 4) if estimator.supports(q, at.target, s) is None]
        found += [(spec, name, s) for s in (sizes[:1] if first_of else sizes)]
    return found


def known(spec, name, num_samples):
    at, estimator = place_of(name), create(spec).eval()
    return at, estimator, at.moments(estimator, num_samples)


# --- The mean ---


@pytest.mark.parametrize(("spec", "name", "num_samples"), cases(UNBIASED))
def test_the_mean_of_an_unbiased_one_is_the_exact_gradient(spec, name, num_samples):
    at, estimator, moments = known(spec, name, num_samples)
    if moments is None:
        assert name == "categorical-toy"  # of 64 configurations
        assert num_samples > 2
        return
    exact = at.exact(estimator.objective, num_samples)
    torch.testing.assert_close(moments.mean, exact, rtol=1e-10, atol=1e-12)


def test_every_formula_is_tried_and_known_at_two_samples():
    tried = {type(create(spec)) for spec in UNBIASED + BIASED}
    assert tried == set(module._FORMULAS)
    for spec in UNBIASED + BIASED:
        assert isinstance(known(spec, PROBLEMS[0], 2)[2], Moments)


# --- Simulation ---


def simulated(at, estimator, num_samples):
    torch.manual_seed(0)
    leaf = at.eta.expand(DRAWS, *at.eta.shape).clone().requires_grad_()
    surrogate = estimator(at.problem.posterior(leaf), at.target, num_samples).surrogate
    return torch.autograd.grad(surrogate.sum(), leaf)[0]


def furthest(at, estimator, num_samples, moments):
    """Largest deviation of means and mean squares from the exact ones, in standard errors."""
    h = simulated(at, estimator, num_samples) - moments.mean
    floor = 1e-9
    worst = []
    for part, exact in ((h, torch.zeros_like(moments.mean)), (h.square(), moments.variance)):
        worst.append(((part.mean(0) - exact).abs() / (part.std(0) / DRAWS**0.5 + floor)).max())
    return float(max(worst))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("spec", "name", "num_samples"), cases(UNBIASED + BIASED, (3, 2)))
def test_simulated_means_and_variances_agree(spec, name, num_samples):
    """About 60 cases of 24 columns at most: one is 6 standard errors off with probability 3e-6 (normal)."""
    at, estimator, moments = known(spec, name, num_samples)
    if moments is not None:
        assert furthest(at, estimator, num_samples, moments) < 6


@pytest.mark.usefixtures("unchecked_shapes")
def test_simulation_sees_a_tenth_of_a_variance_and_a_wrong_mean():
    at, estimator, moments = known("disarm", PROBLEMS[0], 2)
    assert furthest(at, estimator, 2, moments._replace(variance=1.1 * moments.variance)) > 6
    at, estimator, moments = known("reinmax[temperature=1.3]", PROBLEMS[1], 2)
    _, _, other = known("reinmax", PROBLEMS[1], 2)
    assert furthest(at, estimator, 2, moments._replace(mean=other.mean)) > 6


# --- Published numbers, and identities ---


def at_logits(spec, name, eta, num_samples, q_of=None):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, 1, 0)
    eta = torch.tensor([eta], dtype=torch.float64)
    estimator = create(spec).eval()
    return discrete_moments(estimator, q_of or problem.posterior, eta, problem.target(x), num_samples)


@pytest.mark.parametrize(
    ("logit", "gradient", "variances"),
    [
        (0.0, -0.045, {2: 0.0061125, 3: 0.0022625, 4: 0.00113083, 5: 0.0006105}),
        (-4.0, -0.00317929, {2: 2.978e-5, 3: 8.071e-6, 4: 1.055e-6, 5: 7.97e-8}),
    ],
)
def test_the_shared_logit_of_the_unordered_set(logit, gradient, variances):
    """Three Bernoulli variables with one logit, f = Σ (z − p)²."""
    problem = load_problem("shared-logit")
    for num_samples, variance in variances.items():
        found = at_logits(
            "unordered-set",
            "shared-logit",
            [logit],
            num_samples,
            lambda eta: problem.posterior(eta.expand(-1, 3)),
        )
        assert float(-found.mean) == pytest.approx(gradient, rel=1e-5)
        assert float(found.variance) == pytest.approx(variance, rel=1e-3, abs=1e-15)


def test_pairs_on_one_bit():
    """D = 1, t = .45, p = .3."""
    for spec, variance in (("arm", 3.39e-4), ("disarm", 2.94e-4)):
        found = at_logits(spec, "binary-toy[target=0.45]", [-0.8472978603872037], 2)
        assert float(-found.mean) == pytest.approx(0.021, rel=1e-9)
        assert float(found.variance) == pytest.approx(variance, rel=2e-3)


def test_pairs_are_the_group_of_two_and_one_sample_without_replacement_is_reinforce():
    at = place_of(PROBLEMS[0])
    pairs, group = (at.moments(create(spec), 2).variance for spec in ("disarm", "arms"))
    torch.testing.assert_close(pairs, group, rtol=1e-11, atol=0)
    torch.testing.assert_close(group, at.moments(create("carms"), 2).variance, rtol=1e-11, atol=0)
    plain = exact_variance(create("score-function"), at.problem.posterior, at.eta, at.target, 1)
    for spec in ("unordered-set", "sum-and-sample"):
        torch.testing.assert_close(at.moments(create(spec), 1).variance, plain, rtol=1e-11, atol=0)


def test_nothing_is_left_to_chance_where_f_is_a_sum_or_linear():
    sums = at_logits("local-expectation", "binary-toy[latent_dim=4]", [0.3, -1.0, 2.0, 0.1], 1)
    assert float(sums.variance.max()) < 1e-30
    whole = at_logits("unordered-set", "binary-toy[latent_dim=2]", [0.3, -1.0], 4)
    assert float(whole.variance.max()) < 1e-25


def test_what_is_not_known_is_none():
    at = place_of(PROBLEMS[1])
    for spec in ("rebar", "relax", "rodeo", "arsm", "gumbel-softmax", "gumbel-rao"):
        assert at.moments(create(spec), 2) is None
    assert at.moments(type("Derived", (type(create("disarm")),), {})(), 2) is None
    annealed = "straight-through-gumbel-softmax[annealing=0.1]"
    assert place_of(PROBLEMS[0]).moments(create(annealed), 2) is None
