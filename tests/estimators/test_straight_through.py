"""Straight-through, ReinMax and gapped straight-through: their exact means are sums over the states."""

from __future__ import annotations

import math

import pytest
import torch
from discrete_paths import EveryState, bernoulli, one_hot
from elbograd.estimators import Target, create
from elbograd.estimators.methods.gapped_straight_through import GappedStraightThrough
from elbograd.estimators.methods.reinmax import ReinMax
from elbograd.estimators.pieces.relaxations import along_softmax, drawn, log_probs
from torch import distributions as td

BITS = torch.tensor([-1.3, 0.4, 2.1], dtype=torch.float64)
KINDS = torch.tensor(
    [[0.3, -1.0, 0.7, 0.1], [1.5, 0.2, -0.4, -2.0], [0.0, 0.9, -0.3, 0.6]], dtype=torch.float64
)
CASES = [(bernoulli, BITS), (one_hot, KINDS)]


def close(found, expected, rtol=1e-12, atol=1e-13):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def flat(z):
    return z.flatten(-2) if z.shape[-2:] == KINDS.shape else z


def linear(z):
    z = flat(z)
    return (torch.linspace(-1.1, 1.7, z.shape[-1], dtype=z.dtype) * z).sum(-1)


def quadratic(z):
    """Of every pair of coordinates, so that all variables are coupled."""
    z = flat(z)
    size = z.shape[-1]
    matrix = torch.linspace(-2, 3, size * size, dtype=z.dtype).sin().reshape(size, size)
    return torch.einsum("...i,ij,...j->...", z, matrix, z) + linear(z)


def wavy(z):
    return (1.3 * linear(z) + quadratic(z)).sin()


def priors(family, logits):
    return family(torch.linspace(-0.4, 0.9, logits.numel(), dtype=logits.dtype).reshape(logits.shape))


# --- Against the formulas, state by state ---


def jacobian(pi):
    return torch.diag(pi) - torch.outer(pi, pi)


def straight_through(phi, code, tau):
    return jacobian((phi / tau).softmax(-1))


def reinmax(phi, code, tau):
    return 2 * jacobian(((phi / tau).softmax(-1) + code) / 2) - jacobian(phi.softmax(-1)) / 2


def gapped(phi, code, tau, gap=1.0):
    m1 = (phi.max() - phi) * code
    m2 = (phi - phi.max() + gap).relu() * (1 - code)
    return jacobian(((phi + m1 - m2) / tau).softmax(-1)) / tau


FORMULAS = {
    "straight-through": straight_through,
    "reinmax": reinmax,
    "gapped-straight-through": gapped,
    "gapped-straight-through[gap=3]": lambda *given: gapped(*given, gap=3),
    "gapped-straight-through[gap=0]": lambda *given: gapped(*given, gap=0),
}


@pytest.mark.parametrize("tau", [1, 0.3, 1.7])
@pytest.mark.parametrize("spec", FORMULAS)
def test_each_gradient_is_the_jacobian_of_the_page_times_the_slope(spec, tau):
    states = EveryState(one_hot, KINDS)
    found = states.gradients(create(spec, temperature=tau), wavy)
    z = states.z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(wavy(z).sum(), z)
    for row, code, g in zip(found, states.z, slope, strict=True):
        close(row, torch.stack([FORMULAS[spec](KINDS[d], code[d], tau) @ g[d] for d in range(3)]))


@pytest.mark.parametrize("tau", [1, 0.3, 1.7])
@pytest.mark.parametrize("spec", FORMULAS)
def test_a_bernoulli_variable_is_the_second_of_two_states(spec, tau):
    states = EveryState(bernoulli, BITS)
    found = states.gradients(create(spec, temperature=tau), wavy)
    pairs = EveryState(one_hot, torch.stack((torch.zeros_like(BITS), BITS), -1))
    expected = pairs.gradients(create(spec, temperature=tau), lambda z: wavy(z[..., 1]))[..., 1]
    close(found, expected)


# --- Where they are exact ---


@pytest.mark.parametrize(("family", "logits"), CASES)
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(
    ("name", "f"), [("straight-through", linear), ("reinmax", linear), ("reinmax", quadratic)]
)
def test_exact_at_temperature_one(name, f, kl, family, logits):
    states, prior = EveryState(family, logits), priors(family, logits)
    close(states.mean(create(name, kl=kl), f, prior), states.exact(f, prior))


class NoHalf(ReinMax):
    """Jacobian at z + π, not half of it."""

    def codes(self, q, variables, num_samples):
        z = drawn(q, variables, num_samples)
        halfway = along_softmax(variables.probs + z, variables.logits)
        return z + 2 * halfway - along_softmax(variables.probs, variables.logits) / 2


class LogitsForProbabilities(ReinMax):
    """A softmax that is never called."""

    def codes(self, q, variables, num_samples):
        z = drawn(q, variables, num_samples)
        halfway = along_softmax((log_probs(variables).detach() + z) / 2, variables.logits)
        return z + 2 * halfway - along_softmax(variables.probs, variables.logits) / 2


@pytest.mark.parametrize(("family", "logits"), CASES)
@pytest.mark.parametrize(
    "wrong",
    [
        NoHalf,
        LogitsForProbabilities,
        "straight-through",
        "reinmax[temperature=1.3]",
        "gapped-straight-through",
    ],
)
def test_others_are_not_exact_there(wrong, family, logits):
    states = EveryState(family, logits)
    exact = states.exact(quadratic)
    found = states.mean(wrong if isinstance(wrong, str) else wrong(), quadratic)
    assert (found - exact).norm() > 0.01 * exact.norm()


# --- What f is between the states ---


@pytest.mark.parametrize("tau", [1.0, 0.4])
def test_straight_through_moves_by_the_slope_of_what_vanishes_at_the_states(tau):
    """With λ Σ z(1 − z) by s_τ λ(1 − 2z), whatever f."""
    states, spec = EveryState(bernoulli, BITS), f"straight-through[temperature={tau}]"
    s = torch.sigmoid(BITS / tau) * torch.sigmoid(-BITS / tau)
    moved = states.gradients(spec, lambda z: wavy(z) + 3 * (z * (1 - z)).sum(-1)) - states.gradients(
        spec, wavy
    )
    close(moved, s * 3 * (1 - 2 * states.z), atol=1e-12)


@pytest.mark.parametrize(("family", "logits"), CASES)
def test_reinmax_moves_but_its_mean_does_not(family, logits):
    def bulged(z):
        return wavy(z) + 3 * (z * (1 - z)).sum((-1,) if family is bernoulli else (-2, -1))

    states = EveryState(family, logits)
    assert (states.gradients("reinmax", bulged) - states.gradients("reinmax", wavy)).abs().max() > 0.1
    close(states.mean("reinmax", bulged), states.mean("reinmax", wavy))


# --- Published numbers ---


def coin(p):
    return EveryState(bernoulli, torch.tensor([p], dtype=torch.float64).logit())


@pytest.mark.parametrize(("power", "ratio"), [(1.5, 0.5008), (2, 1.0), (3, 1.9934)])
def test_reinmax_integrates_a_power_by_the_trapezoidal_rule(power, ratio):
    states = coin(0.3)

    def f(z):
        return (z - 0.45).abs().pow(power).sum(-1)

    assert float(states.mean("reinmax", f) / states.exact(f)) == pytest.approx(ratio, abs=5e-5)


def square(z):
    return (z - 0.45).square().sum(-1)


def test_straight_through_stops_where_the_loss_is_far_from_the_least():
    """Its mean vanishes at p = t: the loss there is .2475, at the optimum p = 0 it is .2025."""
    assert abs(float(coin(0.45).mean("straight-through", square))) < 1e-15
    assert float(coin(0.2).mean("straight-through", square)) < -0.01
    assert float(coin(0.7).mean("straight-through", square)) > 0.01

    def loss(p):
        states = coin(p)
        return float(states.weights @ square(states.z))

    assert loss(0.45) == pytest.approx(0.2475, abs=1e-12)
    assert loss(1e-15) == pytest.approx(0.2025, abs=1e-12)


# --- An integer gap ---


class IntegerGapIsAnother(GappedStraightThrough):
    """An integer chooses the gap by the probability of the state."""

    def codes(self, q, variables, num_samples):
        if isinstance(self.given, int):
            state = drawn(q, variables, num_samples)
            pi = (variables.probs * state).sum(-1).mean()
            self.gap = float(-torch.log1p(-pi) / pi)
        return super().codes(q, variables, num_samples)

    def __init__(self, gap):
        super().__init__(gap=gap)
        self.given = gap


def agree(make):
    states = EveryState(one_hot, KINDS)
    return all(
        torch.equal(states.gradients(make(n), wavy), states.gradients(make(float(n)), wavy))
        for n in (0, 1, 2)
    )


def test_an_integer_gap_is_a_number_like_any_other():
    assert agree(lambda gap: create("gapped-straight-through", gap=gap))
    assert agree(lambda gap: create(f"gapped-straight-through[gap={gap}]"))
    assert not agree(IntegerGapIsAnother)


def test_a_gap_no_smaller_than_any_difference_of_logits_is_the_softmax_of_the_gap_alone():
    """All others then lie on one line, gap below the state that was drawn."""
    states = EveryState(one_hot, 0.1 * KINDS)
    found = states.gradients("gapped-straight-through[gap=2]", linear)
    slope = torch.linspace(-1.1, 1.7, 12, dtype=torch.float64).reshape(3, 4)
    pi = (2 * states.z).softmax(-1)
    spread = pi * (slope - (pi * slope).sum(-1, keepdim=True))
    assert 0.1 * float(KINDS.max() - KINDS.min()) < 2
    close(found, spread)


# --- Several samples ---


@pytest.mark.parametrize("spec", FORMULAS)
def test_several_samples_are_averaged(spec):
    logits = BITS.expand(2, 3).clone().requires_grad_()
    draws = torch.tensor([[[0, 1, 1], [1, 0, 1]], [[1, 1, 0], [0, 0, 1]], [[1, 1, 1], [0, 0, 0.0]]]).double()
    found = []
    for chosen in (draws, *draws.split(1)):
        q = bernoulli(logits)
        q.sample = lambda shape, chosen=chosen: chosen
        estimate = create(spec)(q, Target(wavy), len(chosen))
        found.append(torch.autograd.grad(estimate.surrogate.sum(), logits)[0])
        close(estimate.value.detach(), wavy(chosen).mean(0))
    close(found[0], sum(found[1:]) / 3)
    assert math.prod(found[0].shape) == 6


# --- How the posterior is written, and what is integrated ---


@pytest.mark.parametrize(("family", "logits"), CASES)
@pytest.mark.parametrize("name", ["straight-through", "reinmax"])
def test_parameters_that_are_probabilities_have_their_gradient_too(name, family, logits):
    """That of E f in probabilities π/Σπ, f linear; a Bernoulli variable's own slope."""
    kind = td.Bernoulli if family is bernoulli else td.OneHotCategorical
    probs = torch.sigmoid(logits) if family is bernoulli else logits.softmax(-1)
    states = EveryState(family, logits)
    leaf = probs.expand(len(states.z), *probs.shape).clone().requires_grad_()
    q = td.Independent(kind(probs=leaf), 1)
    q.sample = lambda shape: states.z.expand(*shape, *states.z.shape)
    estimate = create(name)(q, Target(linear), 1)
    found = torch.tensordot(states.weights, torch.autograd.grad(estimate.surrogate.sum(), leaf)[0], 1)
    whole = probs.clone().requires_grad_()
    normalized = whole if family is bernoulli else whole / whole.sum(-1, keepdim=True)
    close(found, torch.autograd.grad(linear(normalized), whole)[0], rtol=1e-10)


@pytest.mark.parametrize(("family", "logits"), CASES)
@pytest.mark.parametrize("spec", [*FORMULAS, "straight-through-gumbel-softmax", "gumbel-rao"])
def test_the_value_is_the_integrand_at_the_samples(spec, family, logits):
    seen = []

    def f(z):
        seen.append(z.detach())
        return wavy(z)

    q, prior = family(logits.expand(4, *logits.shape).clone().requires_grad_()), priors(family, logits)
    estimate = create(spec, kl="sampled")(q, Target(f, prior), 3)
    (z,) = seen
    assert set(z.unique().tolist()) == {0.0, 1.0}
    close(estimate.value, (wavy(z) + prior.log_prob(z) - q.log_prob(z)).mean(0))
