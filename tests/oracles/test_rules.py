"""Ever finer rules: where they stop, which points they leave out, and that none of it moves an answer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from elbograd.benchmarks.oracles import objectives
from elbograd.benchmarks.oracles.nodes import gaussian_nodes
from elbograd.benchmarks.oracles.objectives import exact_gradients, exact_objective
from elbograd.benchmarks.oracles.rules import LEAST, TOLERANCE, rules_of, settled
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Target
from elbograd.estimators.posteriors.quadrature import hermite_grid
from torch import distributions as td


def answers(values):
    """Ways to these values, and which were taken."""
    taken = []

    def way(value):
        taken.append(value)
        return value

    return [partial(way, value) for value in values], taken


@pytest.mark.parametrize(
    ("values", "expected", "moved"),
    [
        ([3.0], [3.0], 0.0),
        ([1.0, 1.0, 2.0], [1.0, 1.0], 0.0),
        ([1.0, 2.0, 2.05, 3.0], [1.0, 2.0, 2.05], 0.05),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([1.0, float("nan"), 2.0], [1.0, float("nan"), 2.0], float("nan")),
    ],
)
def test_no_finer_answer_once_two_agree(values, expected, moved):
    ways, taken = answers(values)
    answer, distance = settled(ways, lambda a, b: abs(b - a), 0.1)
    assert str(taken) == str(expected)
    assert answer == expected[-1]
    assert distance == pytest.approx(moved, nan_ok=True)


@pytest.mark.parametrize(("d", "nodes"), [(1, 200), (2, 96), (2, 200), (3, 32)])
def test_points_are_left_out_in_pairs_and_weigh_nothing(d, nodes):
    points, weights = hermite_grid(d, nodes, LEAST)
    whole = hermite_grid(d, nodes)[1]
    assert float(whole.sum() - weights.sum()) < 1e-15
    assert float(whole[whole < LEAST].sum()) < 1e-34
    assert torch.equal(points, -points.flip(0))
    assert torch.equal(weights, weights.flip(0))


@pytest.mark.parametrize("posterior", ["gaussian", "full-gaussian", "flow"])
def test_answers_are_those_of_the_two_finest_rules_with_all_points(posterior, monkeypatch):
    problem = place(load_problem(f"small-vae[posterior={posterior}]"), dtype=torch.float64)
    x = first_batch(problem, 2, 0)
    eta, theta = problem.encoder(x).detach(), list(problem.decoder.parameters())
    arguments = (problem.posterior, eta, problem.target, x, theta)
    found = exact_gradients(*arguments)
    monkeypatch.setattr(objectives, "LEAST", 0.0)
    monkeypatch.setattr(objectives, "SETTLED", -1.0)  # never
    for ours, theirs in zip(found[:3], exact_gradients(*arguments)[:3], strict=True):
        assert float((ours - theirs).norm()) <= 1e-9 * float(theirs.norm())


@pytest.mark.parametrize("growth", [0.1, 0.3, 0.4, 0.42, 0.44, 0.45, 0.46, 0.47, 0.48, 0.49, 0.499])
def test_what_grows_too_fast_for_points_left_out_is_no_exact_answer(growth):
    """E exp(c z²) is (1 − 2c)^{-1/2}, and more and more of it lies where no sample goes."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    q = td.Independent(td.Normal(zero, zero + 1), 1)
    value = exact_objective(q, Target(lambda z: (growth * z.square().sum(-1)).exp()))
    assert isinstance(value, str) or float(value) == pytest.approx(
        (1 - 2 * growth) ** -0.5, rel=10 * TOLERANCE
    )
    assert growth > 0.4 or not isinstance(value, str)


def test_points_are_left_out_under_the_objectives_that_are_told_of_them_alone():
    zero = torch.zeros(1, 2, dtype=torch.float64)
    q = td.Independent(td.Normal(zero, zero + 1), 1)
    assert len(rules_of(q).rules[-1](q)[0]) == 40_000
    assert len(rules_of(q, least=LEAST).rules[-1](q)[0]) < 12_000
    assert len(gaussian_nodes(q, 64)[0]) == 64**2
