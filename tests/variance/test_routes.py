"""Whoever draws replicates asks a route, never which of the two it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from elbograd.benchmarks.gradients import prepare, seeded
from elbograd.benchmarks.oracles.references import whole_reference
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.benchmarks.variance import route
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


def drawn(wanted="factorized", like=None, estimator=None, replicates=40):
    problem, x = linear_gaussian()
    estimator = estimator or create("score-function")
    with seeded(0, x.device):
        prepare(problem, estimator, x, 1, None)
        chosen = choose_route(problem, estimator, x, 1, route=wanted, like=like)
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


def test_eta_of_very_many_coordinates_takes_the_full_route(monkeypatch):
    """Matrices (B, P, P) of 3,000 logits are 4.6 GB each for 64 data: whole gradients are drawn instead."""
    assert route.factorizes(torch.empty(64, 1024))
    assert not route.factorizes(torch.empty(64, 3000))
    assert route.factorizes(torch.empty(1, 3000))
    assert drawn().name == "factorized"
    monkeypatch.setattr(route, "_LARGEST_GRAM", 4 * 4 * 4 - 1)
    assert drawn().name == "full"
    assert drawn(like=drawn("full")).total() == drawn("full").total()


@pytest.mark.parametrize("name", ["linear-gaussian", "bernoulli-vae[latent_dim=3,hidden=4]", "vae[hidden=4]"])
def test_such_a_gradient_has_a_reference_too(name, monkeypatch):
    problem = load_problem(name)
    x = first_batch(problem, 2, 0)
    before = whole_reference(problem, x, length=64)
    monkeypatch.setattr(route, "_LARGEST_GRAM", 0)
    found = whole_reference(problem, x, length=64)
    if name.startswith("vae"):
        assert found.kind == "long run of reparameterization (128 whole gradients)"
        return
    assert found.kind == before.kind
    torch.testing.assert_close(found.mean, before.mean)
