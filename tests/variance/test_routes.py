"""Whoever draws replicates asks a route, never which of the two it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from elbograd.benchmarks.gradients import prepare, seeded
from elbograd.benchmarks.variance.route import choose_route
from elbograd.estimators import UsageError, create
from floors import imported, modules
from variances import BatchMeanBaseline, linear_gaussian

ROOT = Path(__file__).parents[2]
ROOM = "benchmarks.variance"


def test_nobody_outside_their_room_knows_the_two_routes():
    known = modules(ROOT, "benchmarks")
    routes = {f"{ROOM}.factorized", f"{ROOM}.full"}
    found = {name for name, file in known.items() if routes & set(imported(name, file, known))}
    assert found == {f"{ROOM}.route"}


def drawn(route="factorized", like=None, estimator=None, replicates=40):
    problem, x = linear_gaussian()
    estimator = estimator or create("score-function")
    with seeded(0, x.device):
        prepare(problem, estimator, x, 1, None)
        chosen = choose_route(problem, estimator, x, 1, route=route, like=like)
        chosen.add(replicates)
    return chosen


def test_what_a_route_does_not_know_is_empty():
    factorized, full = drawn(), drawn("full")
    parts, shares = factorized.breakdown(), full.breakdown()
    assert list(parts.by_parameter) == list(shares.by_parameter) == ["weight", "bias"]
    assert list(parts.by_layer) == list(shares.by_layer) == [""]
    assert (len(parts.by_datum), list(parts.by_eta)) == (4, ["mean", "log_scale"])
    assert (shares.by_datum, shares.by_eta, shares.minibatch) == ([], {}, None)
    assert factorized.contributions_kept().shape == (4, 40)
    assert factorized.eta_mean().shape == (4, 4)
    for unknown in (full.sums, full.chunk, full.jacobian):
        assert unknown is None
    assert full.contributions_kept() is None
    assert full.eta_mean() is None
    assert full.eta_covariance() is None
    with pytest.raises(UsageError, match="stream needs the factorized route"):
        full.join(1)


def test_a_jacobian_is_used_again_by_whoever_needs_one():
    first = drawn()
    again = drawn(like=first)
    assert again.jacobian is first.jacobian
    assert again.total() == first.total()
    assert drawn(like=drawn("full")).total() == first.total()
    assert drawn(like=first, estimator=BatchMeanBaseline()).name == "full"


def test_the_sample_of_both_routes_is_of_the_same_distribution():
    # ĝᵀw along the mean w: the standard error of either variance is some 5%.
    factorized, full = drawn(replicates=4000), drawn("full", replicates=1000)
    w = torch.cat([g.flatten() for g in full.mean().values()])
    one, other = factorized.sample(), full.sample()
    assert one.estimates.shape == other.estimates.shape == (256, w.numel())
    assert one.variance_along(w) == pytest.approx(other.variance_along(w), rel=0.3)
    assert factorized.total().mean == pytest.approx(full.total().mean, rel=0.3)
