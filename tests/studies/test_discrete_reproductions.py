"""Reproductions of discrete latents: their exact numbers by other ways, and that wrong estimators fail them."""

from __future__ import annotations

import math
from itertools import combinations, pairwise, permutations, product

import numpy as np
import pytest
import torch
from elbograd.benchmarks.studies.reproductions import (
    binary_toy,
    closed_forms,
    disarm_toy,
    local_expectation_budget,
    reinmax_polynomials,
    straight_through_bias,
    unordered_set_toy,
)
from elbograd.benchmarks.studies.reproductions.catalogue import REPRODUCTIONS
from elbograd.benchmarks.studies.reproductions.closed_forms import Setting
from elbograd.benchmarks.studies.reproductions.command import reproduce
from elbograd.estimators import Estimate
from elbograd.estimators.methods import (
    arm,
    disarm,
    gumbel_softmax,
    local_expectation,
    reinmax,
    score_function,
    straight_through,
    straight_through_gumbel_softmax,
    unordered_set,
)
from elbograd.estimators.pieces import relaxed_controls
from scipy.integrate import quad

# Variances by hand at a few points, to the digits given.


def test_the_toy_of_two_hundred_variables():
    at = Setting(0.5, 0.499, 200)
    found = [disarm_toy.EXACT[name](at) for name in disarm_toy.EXACT]
    assert found == pytest.approx([7.81e-3, 6.22e-10, 1.25e-9, 1.660e-9, 1.244e-9], rel=1e-3)


def test_the_toy_of_one_variable():
    at = Setting(0.3, 0.45, 1)
    assert at.gradient == pytest.approx(0.021)
    found = [binary_toy.EXACT[name][1](at) for name in ("score-function", "leave-one-out", "arm", "disarm")]
    assert found == pytest.approx([0.015594, 6.09e-4, 3.39e-4, 2.94e-4], rel=1e-4)
    mean, variance = binary_toy.rebar(at)
    assert mean == pytest.approx(0.021, rel=1e-9)
    assert math.sqrt(variance) == pytest.approx(0.1336, rel=1e-3)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
def test_closed_forms_by_enumeration_and_quadrature(p):
    """D = 2, t = 0.3: pairs of states, and both uniform numbers by Gauss-Legendre between their breaks."""
    at = Setting(p, 0.3, 2)
    states = np.array(list(product((0, 1), repeat=2)), dtype=float)
    chance = np.prod(np.where(states == 1, p, 1 - p), axis=1)
    f, score = ((states - at.t) ** 2).mean(1), states[:, 0] - p
    one = (chance @ (f * score) ** 2 - at.gradient**2) / 3
    assert closed_forms.score_function(at, samples=3) == pytest.approx(one)
    pairs = np.subtract.outer(f, f) * np.subtract.outer(states[:, 0], states[:, 0]) / 2
    assert closed_forms.leave_one_out(at) == pytest.approx(chance @ pairs**2 @ chance - at.gradient**2)
    assert chance @ pairs @ chance == pytest.approx(at.gradient)

    u, weights = between(0.0, p, 1 - p, 1.0)
    grid, both = np.stack(np.meshgrid(u, u, indexing="ij")), np.outer(weights, weights)
    b, mirrored = (grid > 1 - p).astype(float), (grid < p).astype(float)
    gap = ((b - at.t) ** 2).mean(0) - ((mirrored - at.t) ** 2).mean(0)
    merged = gap * (grid[0] - 0.5)
    averaged = gap / 2 * (b[0] - mirrored[0]) * max(p, 1 - p)
    for estimate, closed in ((merged, closed_forms.arm(at)), (averaged, closed_forms.disarm(at))):
        assert (both * estimate).sum() == pytest.approx(at.gradient)
        assert (both * estimate**2).sum() - at.gradient**2 == pytest.approx(closed, abs=1e-15)


def between(*breaks):
    x, w = np.polynomial.legendre.leggauss(6)
    ends = sorted(breaks)
    parts = [(a + (b - a) * (x + 1) / 2, (b - a) * w / 2) for a, b in pairwise(ends)]
    return (np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize(
    ("logit", "gradient", "variances"),
    [
        (0.0, -0.045, (0.43842, 0.007275, 0.0061125, 0.0022625, 0.00113083, 0.0006105)),
        (-4.0, -0.00317929, (0.0335568, 3.81e-4, 2.978e-5, 8.071e-6, 1.055e-6, 7.97e-8)),
    ],
)
def test_the_toy_of_a_shared_logit(logit, gradient, variances):
    assert unordered_set_toy.toy(logit).gradient == pytest.approx(gradient, rel=1e-5)
    sets = [unordered_set_toy.unordered_set(logit, k) for k in (2, 3, 4, 5)]
    found = [unordered_set_toy.score_function(logit, 1), unordered_set_toy.leave_one_out(logit, 2)]
    assert [*found, *(variance for _, variance in sets)] == pytest.approx(variances, rel=1e-3)
    assert [mean for mean, _ in sets] == pytest.approx([gradient] * 4, rel=1e-5)
    assert unordered_set_toy.unordered_set(logit, 8)[1] < 1e-24


def test_the_chance_of_a_set_is_the_sum_over_its_orders():
    q, states = unordered_set_toy.toy(-1.0).chance, frozenset(range(8))
    summed = 0.0
    for drawn in combinations(states, 3):
        orders = 0.0
        for order in permutations(drawn):
            left, chance = 1.0, 1.0
            for state in order:
                chance, left = chance * q[state] / left, left - q[state]
            orders += chance
        assert unordered_set_toy._chance(-1.0, frozenset(drawn), states) == pytest.approx(orders)
        summed += orders
    assert summed == pytest.approx(1)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_leave_one_out_over_all_samples(samples):
    at = unordered_set_toy.toy(-1.0)
    first = second = 0.0
    for drawn in product(range(8), repeat=samples):
        f, s = np.array(at.cost)[list(drawn)], np.array(at.score)[list(drawn)]
        estimate = ((f - f.mean()) * s).sum() / (samples - 1)
        chance = math.prod(at.chance[i] for i in drawn)
        first, second = first + chance * estimate, second + chance * estimate**2
    assert first == pytest.approx(at.gradient)
    assert second - first**2 == pytest.approx(unordered_set_toy.leave_one_out(-1.0, samples))


def test_the_trapezoidal_rule_on_powers():
    for power, ratio in ((1.5, 0.5008), (2.0, 1.0), (3.0, 1.9934)):
        for p in (0.1, 0.6):
            found = reinmax_polynomials.reinmax(power, p) / reinmax_polynomials.exact(power, p)
            assert found == pytest.approx(ratio, abs=1e-4)
    assert reinmax_polynomials.straight_through(2.0, 0.45) == pytest.approx(0, abs=1e-15)
    assert reinmax_polynomials.exact(2.0, 0.45) > 0


@pytest.mark.parametrize(
    ("name", "temperature", "mean"),
    [
        ("straight-through-gumbel-softmax", 1.0, -0.0566),
        ("straight-through-gumbel-softmax", 0.1, -0.0009),
        ("gumbel-softmax", 1.0, -0.0318),
        ("gumbel-softmax", 0.1, 0.0019),
    ],
)
def test_means_with_the_wrong_sign(name, temperature, mean):
    """As an integral over y = σ(ζ/τ): ∂y/∂φ dζ = dy, so that it is of f'(z) times the density of ζ."""
    at = Setting(0.1, 0.45, 1)

    def term(y):
        odds = at.p / (1 - at.p) * ((1 - y) / y) ** temperature
        z = y if name == "gumbel-softmax" else float(y > 0.5)
        return 2 * (z - at.t) * odds / (1 + odds) ** 2

    integral = quad(term, 0, 0.5)[0] + quad(term, 0.5, 1)[0]
    assert straight_through_bias.exact_mean(name, at, temperature) == pytest.approx(integral, rel=1e-7)
    assert integral == pytest.approx(mean, abs=6e-5)


def test_tables_of_all_states_by_plain_sums():
    """D = 2, K = 3: every state, and every pair of samples."""
    at, costs = local_expectation_budget.draw(2, 3, seed=5)
    assert at.evaluations == 5
    assert at.expect(costs.interaction * at.additive_part(costs.additive)) == pytest.approx(0, abs=1e-14)
    for table in costs:
        assert at.expect(table) == pytest.approx(0, abs=1e-14)
        assert at.expect(table**2) == pytest.approx(1)
    table, pi = costs.mixed(0.4), at.probs
    states = list(product(range(3), repeat=2))
    weight = np.array([pi[0, i] * pi[1, j] for i, j in states])
    f = np.array([table[state] for state in states])
    score = np.array([(np.arange(3) == i) - pi[0] for i, _ in states])
    score = np.hstack([score, [(np.arange(3) == j) - pi[1] for _, j in states]])
    gradient = (weight * f) @ score
    assert at.gradient(table).ravel() == pytest.approx(gradient)
    local = np.array(
        [
            [pi[0, k] * (table[k, j] - pi[0] @ table[:, j]) for k in range(3)]
            + [pi[1, k] * (table[i, k] - pi[1] @ table[i]) for k in range(3)]
            for i, j in states
        ]
    )
    assert weight @ local == pytest.approx(gradient)
    trace = float((weight @ (local - gradient) ** 2).sum())
    assert local_expectation_budget.local_expectation(at, table) == pytest.approx(trace)
    pairs = (f[:, None] - f)[..., None] * (score[:, None] - score) / 2
    trace = np.einsum("i,j,ijc->", weight, weight, pairs**2) - (gradient**2).sum()
    assert local_expectation_budget.leave_one_out(at, table, 2) == pytest.approx(trace)


def scaled(cls):
    """Nine tenths of the gradient."""
    correct = cls.forward

    def forward(self, q, target, num_samples):
        estimate = correct(self, q, target, num_samples)
        value = estimate.surrogate.detach()
        return Estimate(value + 0.9 * (estimate.surrogate - value), estimate.value)

    return cls, "forward", forward


def without_weight():
    """DisARM with ½ in place of max(p, 1 − p): right at p = ½ alone."""
    correct = disarm.antithetic_pairs

    def pairs(variables, num_pairs):
        found = correct(variables, num_pairs)
        return found._replace(credit=found.credit.sign() / 2)

    return disarm, "antithetic_pairs", pairs


def without_baseline():
    """The unordered set without B: as unbiased, noisier."""
    correct = unordered_set.inclusion

    def inclusion(log_q):
        first, second = correct(log_q)
        return first, torch.zeros_like(second)

    return unordered_set, "inclusion", inclusion


def without_ratio():
    """What a set's states weigh: their probabilities alone."""
    correct = unordered_set.inclusion
    return unordered_set, "inclusion", lambda log_q: (log_q.exp(), correct(log_q)[1])


def conditional_noise_fixed():
    """REBAR whose noise given b does not move with φ."""
    correct = relaxed_controls.conditional_gumbels

    def fixed(logits, codes):
        return correct(logits.detach(), codes) + (logits - logits.detach())

    return relaxed_controls, "conditional_gumbels", fixed


def soft_in_place_of_hard():
    """Straight-through that evaluates f at the relaxed sample."""
    return (
        straight_through_gumbel_softmax.StraightThroughGumbelSoftmax,
        "codes",
        gumbel_softmax.GumbelSoftmax.codes,
    )


MEAN, VARIANCE = "means agree", "variances agree"
PLANTS = {
    "arm-for-disarm": (
        "disarm-toy",
        lambda: (disarm.DisARM, "forward", arm.ARM.forward),
        (VARIANCE, "disarm at p = ½"),
    ),
    "disarm-unweighted": ("disarm-toy", without_weight, (MEAN, VARIANCE)),
    "set-without-baseline": ("unordered-set-toy", without_baseline, (VARIANCE, "unordered-set, k = 3")),
    "set-without-ratio": ("unordered-set-toy", without_ratio, (MEAN, "gradient (unordered-set")),
    "rebar-fixed-noise": (
        "binary-toy",
        conditional_noise_fixed,
        (MEAN, VARIANCE, "rebar at p = 0.3, standard deviation"),
    ),
    "reinforce-scaled": (
        "binary-toy",
        lambda: scaled(score_function.ScoreFunction),
        (VARIANCE, "score-function at p"),
    ),
    "straight-through-for-reinmax": (
        "reinmax-polynomials",
        lambda: (reinmax.ReinMax, "codes", straight_through.StraightThrough.codes),
        (MEAN, "mean of reinmax over", "reinmax finds the optimum", "reinmax is exact"),
    ),
    "reinmax-for-straight-through": (
        "reinmax-polynomials",
        lambda: (straight_through.StraightThrough, "codes", reinmax.ReinMax.codes),
        (MEAN, "straight-through stays", "straight-through is not"),
    ),
    "soft-for-hard": ("straight-through-bias", soft_in_place_of_hard, (MEAN, "temperature 1: mean")),
    "gumbel-scaled": (
        "straight-through-bias",
        lambda: scaled(gumbel_softmax.GumbelSoftmax),
        (MEAN, "temperature 1: mean"),
    ),
    "local-scaled": (
        "local-expectation-budget",
        lambda: scaled(local_expectation.LocalExpectation),
        (VARIANCE, MEAN),
    ),
    "reinforce-for-local": (
        "local-expectation-budget",
        lambda: (
            local_expectation.LocalExpectation,
            "forward",
            lambda self, q, target, num_samples: score_function.ScoreFunction()(q, target, num_samples),
        ),
        (VARIANCE, "equal evaluations", "no variance", "norm of z − b"),
    ),
}


def test_each_has_a_wrong_estimator():
    elsewhere = {  # test_reproductions.py
        "gradient-variance",
        "logistic-regression",
        "importance-weighted-snr",
        "sticking-the-landing",
        "vargrad",
        "local-reparameterization",
    }
    assert {name for name, _, _ in PLANTS.values()} == REPRODUCTIONS.keys() - elsewhere


@pytest.mark.parametrize("plant", PLANTS)
def test_a_wrong_estimator_fails_the_claims_about_it(plant, monkeypatch):
    name, planted, claims = PLANTS[plant]
    monkeypatch.setattr(*planted())
    failed = [claim.what for claim in reproduce(name, quick=True).claims if not claim.holds]
    for claim in claims:
        assert any(claim in what for what in failed), (claim, failed)


def test_a_wrong_number_fails_the_claim_about_it(monkeypatch):
    correct = disarm_toy.EXACT["arm"]
    monkeypatch.setitem(disarm_toy.EXACT, "arm", lambda at: 1.15 * correct(at))
    failed = [claim.what for claim in reproduce("disarm-toy", quick=True).claims if not claim.holds]
    assert any(VARIANCE in what for what in failed)
    assert not any("leave-one-out at" in what for what in failed)
