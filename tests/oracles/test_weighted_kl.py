"""Exact answers for a weighted KL, against sums written out here; held-out numbers; names in the rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.certification.levels import Settings
from elbograd.benchmarks.certification.problem import certify_problem
from elbograd.benchmarks.oracles.discrete_moments import discrete_moments
from elbograd.benchmarks.oracles.objectives import exact_objective
from elbograd.benchmarks.oracles.references import compared_objective, reference_gradient
from elbograd.benchmarks.oracles.variances import exact_variance
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.benchmarks.rows.text import say
from elbograd.benchmarks.training.held_out import evaluate_elbo, importance_weighted_log_likelihood
from elbograd.estimators import Estimate, Estimator, FreeBits, UsageError, create
from elbograd.estimators.testing.toy_problems import FAMILIES

WEIGHTS = (0.3, 0.0, FreeBits(0.2))
GAUSSIAN, BERNOULLI, ONE_HOT, _ = FAMILIES


def coordinates_kl(problem):
    """KL_j, (B, D), by its integral over each coordinate alone: of Gaussians on a fine grid."""
    q, prior = problem.q.base_dist, problem.target.prior.base_dist
    if problem.q.support.is_discrete:
        states = q.enumerate_support()
        return (q.log_prob(states).exp() * (q.log_prob(states) - prior.log_prob(states))).sum(0)
    t = torch.linspace(-12, 12, 20001, dtype=torch.float64).reshape(-1, 1, 1)
    z = q.loc + q.scale * t
    term = q.log_prob(z).exp() * (q.log_prob(z) - prior.log_prob(z)) * q.scale
    return term.sum(0) * (t[1, 0, 0] - t[0, 0, 0])


def weighted_kl(problem, weight):
    each = coordinates_kl(problem)
    if isinstance(weight, FreeBits):
        return torch.where(each > weight.nats, each, weight.nats).sum(-1)
    return weight * each.sum(-1)


def weighted_elbo(problem, weight):
    """The ELBO and its gradient in eta."""
    plain = problem.exact(prior=False)
    kl = weighted_kl(problem, weight)
    (slope,) = torch.autograd.grad(kl.sum(), problem.eta, allow_unused=True, materialize_grads=True)
    return plain.value - kl.detach(), plain.eta_grad - slope


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("family", FAMILIES[:3], ids=lambda family: family.name)
def test_exact_objectives_and_the_exact_estimator_weigh_the_kl(family, weight):
    problem = family.problem()
    target = replace(problem.target, kl_weight=weight)
    value, gradient = weighted_elbo(problem, weight)
    for found in (exact_objective(problem.q, target), create("exact")(problem.q, target, 1).surrogate):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-9)
        (slope,) = torch.autograd.grad(found.sum(), problem.eta)
        torch.testing.assert_close(slope, gradient, rtol=1e-7, atol=1e-8)


def test_an_objective_of_another_weight_and_bounds_have_no_exact_value():
    problem = GAUSSIAN.problem()
    target = replace(problem.target, kl_weight=0.5)
    assert not isinstance(exact_objective(problem.q, target, "elbo[kl_weight=0.5]"), str)
    assert "has kl_weight=0.5, not kl_weight=2" in exact_objective(problem.q, target, "elbo[kl_weight=2]")
    assert "has the prior whole" in exact_objective(problem.q, target, "iwae", 2)


@pytest.mark.parametrize("weight", [0.3, FreeBits(0.2)], ids=str)
@pytest.mark.parametrize(
    "spec", ["score-function", "muprop", "score-function[kl=sampled]", "disarm[kl=sampled]"]
)
def test_exact_moments_of_discrete_latents_are_of_the_weighted_kl(spec, weight):
    """Against the exact gradient; the variance against draws by a test of its mean at a false-alarm rate of 1e-4."""
    estimator, problem = create(spec), BERNOULLI.problem()
    target = replace(problem.target, kl_weight=weight)
    if estimator.supports(problem.q, target, 2):
        return
    variance = exact_variance(estimator, problem.posterior, problem.eta, target, 2)
    moments = discrete_moments(estimator, problem.posterior, problem.eta, target, 2)
    gradient = weighted_elbo(problem, weight)[1]
    if moments is not None:
        torch.testing.assert_close(moments.mean, gradient, rtol=1e-9, atol=1e-10)
    many = BERNOULLI.problem((10_000,))
    torch.manual_seed(0)
    estimate = estimator(many.q, replace(many.target, kl_weight=weight), 2)
    (draws,) = torch.autograd.grad(estimate.surrogate.sum(), many.eta)
    squares = (draws - gradient).square() - variance
    z = squares.mean(0) / (squares.std(0) / len(squares) ** 0.5)
    assert float(z.abs().max()) < 4.6  # 9 coordinates


@pytest.mark.parametrize("spec", ["sticking-the-landing", "leave-one-out[kl=sampled]"])
def test_exact_variances_under_a_gaussian_are_of_the_weighted_kl(spec):
    problem, many = GAUSSIAN.problem(), GAUSSIAN.problem((20_000,))
    estimator = create(spec)
    variance = exact_variance(
        estimator, problem.posterior, problem.eta, replace(problem.target, kl_weight=0.3), 2
    )
    torch.manual_seed(1)
    estimate = estimator(many.q, replace(many.target, kl_weight=0.3), 2)
    (draws,) = torch.autograd.grad(estimate.surrogate.sum(), many.eta)
    gradient = weighted_elbo(problem, 0.3)[1]
    deviation = (draws - gradient).mean(0) / (variance / len(draws)).sqrt()
    assert float(deviation.abs().max()) < 4.6  # of 12 coordinates, 5e-5
    torch.testing.assert_close(
        draws.var(0), variance, rtol=0.2, atol=0.0
    )  # with the KL whole off by up to 78% and more


# --- Problems, references, rows ---


@pytest.mark.parametrize("name", ["vae", "bernoulli-vae", "categorical-vae", "small-vae", "linear-gaussian"])
def test_the_problems_of_the_suite_have_a_knob(name):
    x = first_batch(load_problem(name), 2, 0)
    assert load_problem(f"{name}[kl_weight=4]").target(x).kl_weight == 4
    assert load_problem(f"{name}[free_bits=0.1]").target(x).kl_weight == FreeBits(0.1)
    for bad, told in (
        ("kl_weight=-1", "kl_weight=-1 is not a number of 0 or more"),
        ("kl_weight=much", "kl_weight='much' is not"),
        ("free_bits=-1", "free_bits=-1 is not"),
        ("free_bits=1,kl_weight=2", "give one of them"),
    ):
        with pytest.raises(UsageError, match=told) as refused:
            load_problem(f"{name}[{bad}]")
        assert "\n" not in str(refused.value)


def test_rows_name_the_weighted_objective_and_the_reference_is_of_it():
    problem = load_problem("small-vae[posterior=bernoulli,kl_weight=0.5]")
    x = first_batch(problem, 3, 0)
    result = measure_variance(problem, "disarm", x, num_samples=2, replicates=4000, seed=1)
    assert {row["objective"] for row in result.rows()} == {"elbo[kl_weight=0.5]"}
    reference = reference_gradient(problem, x, 0, "elbo[kl_weight=0.5]")
    plain = reference_gradient(load_problem("small-vae[posterior=bernoulli]"), x, 0)
    assert reference.kind == "enumeration"
    n = result.replicates
    errors = (result.eta_covariance.diagonal(dim1=-2, dim2=-1) / n).sqrt()
    assert float(((result.eta_mean - reference.eta_mean) / errors).abs().max()) < 4.6  # 9 coordinates, 4e-5
    assert float(((result.eta_mean - plain.eta_mean) / errors).abs().max()) > 10


@pytest.mark.parametrize(
    ("objective", "compared"),
    [
        ("elbo[kl_weight=0.5]", "elbo[kl_weight=0.5]"),
        ("relaxed[free_bits=0.1]", "elbo[free_bits=0.1]"),
        ("relaxed[temperature=0.5,kl_weight=4]", "elbo[kl_weight=4]"),
        ("relaxed", "elbo"),
        ("iwae", "iwae"),
    ],
)
def test_a_mean_is_held_against_the_elbo_of_the_same_weight(objective, compared):
    assert compared_objective(objective) == compared


def test_a_weighted_elbo_is_called_so():
    assert say("objective", "elbo[kl_weight=4]") == "ELBO with kl_weight=4"
    assert say("objective", "elbo") == "ELBO"


def test_held_out_the_elbo_is_weighted_and_the_bound_of_the_likelihood_is_not():
    x = first_batch(load_problem("linear-gaussian"), 50, 0)
    of = {w: place(load_problem(f"linear-gaussian[kl_weight={w}]"), dtype=torch.float64) for w in (0, 1, 3)}
    x = x.double()
    elbos = {w: evaluate_elbo(problem, x, 0) for w, problem in of.items()}
    kl = elbos[0] - elbos[1]
    assert kl > 0.1
    assert elbos[0] - elbos[3] == pytest.approx(3 * kl, rel=1e-9)
    bounds = [importance_weighted_log_likelihood(problem, x, 8, 0) for problem in of.values()]
    assert bounds[0] == bounds[1] == bounds[2]


class Ignorant(Estimator):
    """Reparameterization with the KL of the target whole, as a third party wrote it before there was a weight."""

    derivatives = 1

    def forward(self, q, target, num_samples):
        z = q.rsample((num_samples,))
        elbo = (target.log_likelihood(z) + target.prior.log_prob(z) - q.log_prob(z)).mean(0)
        return Estimate(elbo, elbo)


def test_an_estimator_that_does_not_know_of_the_weight_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"does not claim to weigh the KL .kl_weight=0.5.") as refused:
        measure_variance("small-vae[kl_weight=0.5]", Ignorant(), replicates=10)
    assert "\n" not in str(refused.value)
    assert "set weighs_kl = True" in str(refused.value)
    with pytest.raises(UsageError, match="does not claim to weigh the KL"):
        train("small-vae[free_bits=0.1]", Ignorant(), steps=1)
    settings = Settings(confidence=0.99, tolerance=0.05, confirm_level=1e-2, seed=0, seconds=1)
    left_out = certify_problem(Ignorant, load_problem("small-vae[kl_weight=0.5]"), "weighted", settings)
    assert "does not claim to weigh the KL" in left_out.skipped["weighted"]
    measure_variance("small-vae", Ignorant(), replicates=10)
