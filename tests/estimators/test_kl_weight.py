"""A target's weight of the KL: what may be given, and both doors to it against sums and algebra."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from elbograd.estimators import Estimate, Estimator, FreeBits, Layered, Target, UsageError, create
from elbograd.estimators.kl_weight import split_objective, weighted_objective
from elbograd.estimators.methods.reparameterization import Reparameterization
from elbograd.estimators.pieces.objective import analytic_kl, integrand, unsupported_kl
from elbograd.estimators.plugins.registry import BUILTIN_NAMES
from elbograd.estimators.posteriors.distributions import cut
from elbograd.estimators.posteriors.outcomes import enumerate_outcomes
from elbograd.estimators.testing import estimator_checks
from elbograd.estimators.testing.mean_test import find_deviation
from elbograd.estimators.testing.toy_problems import FAMILIES
from torch import distributions as td

GAUSSIAN, BERNOULLI, ONE_HOT, _ = FAMILIES


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (-1, "kl_weight=-1 is not a number of 0 or more"),
        (math.inf, "kl_weight=inf is not"),
        (math.nan, "kl_weight=nan is not"),
        ("4", "kl_weight='4' is not"),
        (True, "kl_weight=True is not"),
        (None, "kl_weight=None is not"),
        ({"z1": 1, "z2": -0.5}, "kl_weight of z2=-0.5 is not"),
        ({}, "names no latent"),
    ],
)
def test_what_is_no_weight_is_refused_in_one_line(weight, told):
    with pytest.raises(UsageError, match=told) as refused:
        Target(lambda z: z.sum(-1), kl_weight=weight)
    assert "\n" not in str(refused.value)


def test_free_bits_are_a_number_of_nats():
    with pytest.raises(UsageError, match="free_bits=-1 is not a number of 0 or more"):
        FreeBits(-1)
    assert FreeBits(2).nats == 2.0


@pytest.mark.parametrize(
    "objective", ["elbo", "relaxed[temperature=0.5]", "thermodynamic[partitions=3,smallest=0.1]"]
)
@pytest.mark.parametrize("weight", ["", "kl_weight=0.5", "free_bits=0.1", "kl_weight.z1=0.5,kl_weight.z2=1"])
def test_the_name_of_an_objective_comes_apart_again(objective, weight):
    assert split_objective(weighted_objective(objective, weight)) == (objective, weight)


def normal(loc, scale):
    return td.Independent(td.Normal(loc, scale), 1)


def coins(logits):
    return td.Independent(td.Bernoulli(logits=logits), 1)


@pytest.mark.parametrize("family", [BERNOULLI, ONE_HOT], ids=["bernoulli", "one-hot"])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_free_bits_are_those_of_every_coordinate_by_enumeration(family, lead):
    problem = family.problem(lead)
    target = replace(problem.target, kl_weight=FreeBits(0.2))
    z = enumerate_outcomes(problem.q)
    q, prior = problem.q.base_dist, target.prior.base_dist
    each = (problem.q.log_prob(z).exp().unsqueeze(-1) * (q.log_prob(z) - prior.log_prob(z))).sum(0)
    assert (each > 0.2).any()
    assert (each < 0.2).any()
    expected = torch.where(each > 0.2, each, 0.2).sum(-1)
    torch.testing.assert_close(analytic_kl(problem.q, target), expected, rtol=1e-12, atol=1e-12)


def test_free_bits_of_a_gaussian_by_algebra_and_without_a_slope_below():
    loc = torch.tensor([[1.5, 0.1], [0.0, -2.0]], dtype=torch.float64, requires_grad=True)
    target = Target(lambda z: z.sum(-1), normal(torch.zeros(2).double(), 1.0), kl_weight=FreeBits(0.5))
    kl = analytic_kl(normal(loc, torch.ones(())), target)
    torch.testing.assert_close(kl, torch.tensor([1.125 + 0.5, 0.5 + 2.0], dtype=torch.float64))
    (slope,) = torch.autograd.grad(kl.sum(), loc)
    assert slope.tolist() == [[1.5, 0.0], [0.0, -2.0]]


@pytest.mark.parametrize("weight", [0, 0.3, 4])
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_one_number_weighs_both_doors(weight, kl):
    problem = GAUSSIAN.problem()
    target = replace(problem.target, kl_weight=weight)
    z = problem.q.sample((5,))
    f = problem.log_likelihood(z)
    ratio = target.prior.log_prob(z) - problem.q.log_prob(z)
    divergence = td.kl_divergence(problem.q, target.prior.expand((3,)))
    sampled = kl == "sampled"
    expected = f + weight * ratio if sampled else f
    torch.testing.assert_close(integrand(problem.q, target, z, kl), expected)
    beside = analytic_kl(problem.q, target, kl)
    torch.testing.assert_close(f.new_zeros(3) + beside, 0.0 * divergence if sampled else weight * divergence)


# --- A number for each latent ---


def pair(loc):
    return Layered({"z1": normal(loc, 0.7), "z2": lambda z1: normal(0.5 * z1 + 1, 1.3)})


def joint_prior():
    zero = torch.zeros(2, dtype=torch.float64)
    return Layered({"z1": lambda z2: normal(z2, 1.1), "z2": normal(zero, 0.9)})


def test_each_latent_has_its_own_weight():
    q, prior = pair(torch.zeros(3, 2, dtype=torch.float64)), joint_prior()
    z = q.sample((4,))
    target = Target(lambda z: z.square().sum(-1), prior, kl_weight={"z2": 0.25, "z1": 2})
    z1, z2 = z.split(2, -1)
    one = normal(z2, 1.1).log_prob(z1) - normal(torch.zeros(2).double(), 0.7).log_prob(z1)
    two = normal(torch.zeros(2).double(), 0.9).log_prob(z2) - normal(0.5 * z1 + 1, 1.3).log_prob(z2)
    expected = z.square().sum(-1) + 2 * one + 0.25 * two
    torch.testing.assert_close(integrand(q, target, z, "sampled"), expected)
    torch.testing.assert_close(integrand(q, target, z, "sampled", q.log_prob(z)), expected)
    nothing = replace(target, kl_weight={"z1": 0, "z2": 0})
    assert torch.equal(integrand(q, nothing, z, "sampled"), z.square().sum(-1))


def test_the_closed_form_of_latents_that_do_not_depend_on_each_other():
    zero = torch.zeros(3, 2, dtype=torch.float64)
    q = Layered({"a": normal(zero + 1, 0.5), "b": coins(zero + 0.4)})
    prior = Layered({"b": coins(zero[0]), "a": normal(zero[0], 1.0)})
    target = Target(lambda z: z.sum(-1), prior, kl_weight={"a": 0.5, "b": 3})
    each = [td.kl_divergence(q.layers[n], prior.layers[n].expand((3,))) for n in ("a", "b")]
    torch.testing.assert_close(analytic_kl(q, target), 0.5 * each[0] + 3 * each[1])


@pytest.mark.parametrize(
    ("q", "prior", "told"),
    [
        (normal(torch.zeros(3, 4), 1.0), joint_prior(), "the posterior has none by name: give one number"),
        (pair(torch.zeros(3, 2)), normal(torch.zeros(4), 1.0), "the prior has none by name"),
        (
            Layered({"z1": normal(torch.zeros(3, 2), 1.0), "z3": normal(torch.zeros(3, 2), 1.0)}),
            joint_prior(),
            "of the latents z1, z2, and those of the posterior are z1, z3",
        ),
    ],
)
def test_weights_of_other_latents_are_refused_in_one_line(q, prior, told):
    target = Target(lambda z: z.sum(-1), prior, kl_weight={"z1": 0.5, "z2": 1})
    for kl in ("analytic", "sampled"):
        reason = unsupported_kl(q, target, kl)
        assert told in reason
        assert "\n" not in reason
    with pytest.raises(UsageError, match=told):
        integrand(q, target, torch.zeros(2, 3, 4), "sampled")


# --- What cannot weigh the KL says so ---


@pytest.mark.parametrize(
    "spec",
    [
        "iwae",
        "dreg",
        "iwae-sticking-the-landing",
        "vimco",
        "ovis",
        "local-disarm",
        "reweighted-wake-sleep",
        "thermodynamic",
        "thermodynamic[partitions=1]",
    ],
)
@pytest.mark.parametrize("weight", [0.3, FreeBits(0.1)])
def test_multi_sample_bounds_have_no_weight(spec, weight):
    family = BERNOULLI if spec == "local-disarm" else GAUSSIAN
    problem = family.problem()
    target = replace(problem.target, kl_weight=weight)
    reason = create(spec).supports(problem.q, target, 4)
    assert reason.startswith("needs kl_weight=1, not ")
    assert "\n" not in reason


@pytest.mark.parametrize("spec", ["sticking-the-landing", "vargrad", "score-function[kl=sampled]"])
def test_free_bits_are_not_sampled(spec):
    problem = GAUSSIAN.problem()
    target = replace(problem.target, kl_weight=FreeBits(0.1))
    assert "free bits need a closed-form KL" in create(spec).supports(problem.q, target, 4)


def test_free_bits_of_coordinates_that_depend_on_each_other_are_refused():
    q = td.MultivariateNormal(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
    target = Target(lambda z: z.sum(-1), normal(torch.zeros(2), 1.0), kl_weight=FreeBits(0.1))
    for spec in ("reparameterization", "score-function", "exact"):
        reason = create(spec).supports(q, target, 1)
        assert "free bits need independent coordinates" in reason
        assert "\n" not in reason


# --- The claim, which the conformance suite checks of every estimator; and wrong ones ---


@pytest.mark.parametrize("spec", BUILTIN_NAMES)
def test_every_estimator_claims_to_weigh_the_kl(spec):
    assert create(spec).weighs_kl


def kl_weight_checks(factory):
    return [check for check in estimator_checks(factory) if check.name.startswith("kl-weight")]


class Whole(Estimator):
    """Claims to weigh the KL, and leaves it whole."""

    weighs_kl = True
    derivatives = 1

    def estimate(self, q, target, z):
        return target.log_likelihood(z) + target.prior.log_prob(z) - q.log_prob(z)

    def supports(self, q, target, num_samples):
        return None if q.has_rsample else "needs a reparameterizable posterior"

    def forward(self, q, target, num_samples):
        elbo = self.estimate(q, target, q.rsample((num_samples,))).mean(0)
        return Estimate(elbo, elbo)


class PriorAlone(Whole):
    """Weighs log p(z), and not log q(z)."""

    def supports(self, q, target, num_samples):
        free_bits = "free bits" if isinstance(target.kl_weight, FreeBits) else None
        return super().supports(q, target, num_samples) or free_bits

    def estimate(self, q, target, z):
        return target.log_likelihood(z) + target.kl_weight * target.prior.log_prob(z) - q.log_prob(z)


class ForgetsTheCut(PriorAlone):
    """Weighs both, but cuts φ out of a log q that it does not weigh in the score."""

    def estimate(self, q, target, z):
        log_q = q.log_prob(z)
        path = cut(q).log_prob(z)
        ratio = target.prior.log_prob(z) - log_q.detach() - (path - path.detach()) / target.kl_weight
        return target.log_likelihood(z) + target.kl_weight * ratio


class NoFreeBits(Reparameterization):
    """Takes free bits for a weight of one."""

    def forward(self, q, target, num_samples):
        if isinstance(target.kl_weight, FreeBits):
            target = replace(target, kl_weight=1.0)
        return super().forward(q, target, num_samples)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Whole, "the gradient in η is the same with kl_weight=0.3 as without"),
        (PriorAlone, "biased: mean"),
        (ForgetsTheCut, "gradient in η with kl_weight=0.3"),
        (NoFreeBits, "with free_bits=0.2"),
    ],
)
def test_one_that_claims_to_weigh_the_kl_and_does_not_is_found_out(wrong, told):
    (check,) = kl_weight_checks(wrong)
    with pytest.raises(AssertionError, match=told):
        check()


# --- No KL at all, and many shapes ---


@pytest.mark.parametrize(
    "spec", ["reparameterization", "score-function[kl=sampled]", "muprop[kl=sampled]", "exact"]
)
def test_a_weight_of_zero_is_no_prior(spec):
    family = BERNOULLI if spec.startswith("muprop") else GAUSSIAN
    problem, estimates = family.problem((2,), learned=True), []
    for target in (replace(problem.target, kl_weight=0), replace(problem.target, prior=None)):
        torch.manual_seed(0)
        estimate = create(spec)(problem.q, target, 3)
        slopes = torch.autograd.grad(
            estimate.surrogate.sum(), (problem.eta, *problem.learned), materialize_grads=True
        )
        estimates.append((estimate.value.detach(), *slopes))
    for one, other in zip(*estimates, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "size", "samples"), [(1, 1, 1), (256, 1, 3), (1, 128, 100), (256, 128, 3)])
@pytest.mark.parametrize("spec", ["moving-average-baseline", "learned-baseline", "sticking-the-landing"])
def test_the_weight_is_of_no_account_to_shapes_and_types(spec, batch, size, samples, dtype):
    """With one standard normal prior and posterior of loc 1 the closed-form KL is D/2, whatever B and S."""
    q = normal(torch.ones(batch, size, dtype=dtype, requires_grad=True), torch.ones((), dtype=dtype))
    target = Target(
        lambda z: 0 * z.sum(-1),
        normal(torch.zeros(size, dtype=dtype), 1.0),
        q.base_dist.loc.detach(),
        kl_weight=0.3,
    )
    estimator = create(spec)
    estimator.init(q, target)
    value = estimator.to(dtype)(q, target, samples).value
    assert value.shape == (batch,)
    assert value.dtype == dtype
    if not spec.startswith("sticking"):
        torch.testing.assert_close(value, torch.full_like(value, -0.3 * size / 2), rtol=1e-5, atol=1e-5)


# --- Estimators on latents that each have their own weight, against a sum over all of them ---

OWN_WEIGHTS = {"z1": 3.0, "z2": 0.3}


class TwoLayers:
    """q(z1) q(z2|z1) of two bits each, by eta (*batch, 6): two logits, and a map of z1.

    The prior is p(z2) p(z1|z2), or drawn in the posterior's order, where there is a closed-form KL.
    """

    def __init__(self, lead=(), alike=False):
        table = torch.tensor([[0.4, -0.7, 0.9, -0.3, 0.6, -1.1], [-0.2, 0.8, -0.5, 1.2, 0.1, 0.7]]).double()
        self.eta = table.expand(*lead, 2, 6).clone().requires_grad_()
        of_z1 = self.eta[..., 2:].unflatten(-1, (2, 2))
        q2 = lambda z1: coins((z1.unsqueeze(-2) * of_z1).sum(-1) - 0.2)  # noqa: E731
        self.q = Layered({"z1": coins(self.eta[..., :2]), "z2": q2})
        top = torch.tensor([0.5, -0.4]).double()
        prior = Layered({"z1": lambda z2: coins(1.3 * z2 - 0.8), "z2": coins(top)})
        if alike:
            prior = Layered({"z1": coins(top), "z2": lambda z1: coins(1.3 * z1 - 0.8)})
        self.target = Target(self.log_likelihood, prior, kl_weight=OWN_WEIGHTS)

    def log_likelihood(self, z):
        return torch.sin(z @ torch.tensor([1.1, -0.6, 0.9, 0.4]).double()) + z[..., 0] * z[..., 3]

    def exact(self):
        """Value and gradient in eta, a sum over the 16 outcomes."""
        z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4).unsqueeze(1).expand(-1, 2, -1)
        q, p = self.q.log_probs(z), self.target.prior.log_probs(z)
        f = self.log_likelihood(z) + sum(w * (p[name] - q[name]) for name, w in OWN_WEIGHTS.items())
        value = ((q["z1"] + q["z2"]).exp() * f).sum(0)
        return value.detach(), torch.autograd.grad(value.sum(), self.eta)[0]


@pytest.mark.parametrize(
    "spec",
    [
        "exact",
        "score-function[kl=sampled]",
        "score-function",
        "leave-one-out[kl=sampled]",
        "vargrad",
        "disarm",
    ],
)
def test_estimators_weigh_each_latent_s_kl_by_its_own_weight(spec):
    """By the suite's sequential test of a mean, whose false alarms are below 1e-5 each."""
    alike = "sampled" not in spec and spec not in ("exact", "vargrad")
    small = TwoLayers(alike=alike)
    value, gradient = small.exact()
    estimator, samples = create(spec), 2
    assert estimator.supports(small.q, small.target, samples) is None

    def deviations(n):
        problem = TwoLayers((1 if estimator.deterministic else n,), alike)
        estimate = estimator(problem.q, problem.target, samples)
        (slope,) = torch.autograd.grad(estimate.surrogate.sum(), problem.eta)
        found = torch.cat((slope - gradient, (estimate.value.detach() - value).unsqueeze(-1)), -1)
        return found.flatten(1).expand(n, -1)

    torch.manual_seed(0)
    assert find_deviation(deviations, (4096, 16384, 65536), floor=1e-9) is None


def test_the_sum_by_hand_tells_the_weights_apart():
    """Else the test above could not fail."""
    problem = TwoLayers()
    whole = replace(problem.target, kl_weight=1.0)
    estimate = create("exact")(problem.q, whole, 1)
    (slope,) = torch.autograd.grad(estimate.surrogate.sum(), problem.eta)
    value, gradient = problem.exact()
    assert (slope - gradient).abs().max() > 0.05
    assert (estimate.value - value).abs().max() > 0.05
