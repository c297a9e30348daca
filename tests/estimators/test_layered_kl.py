"""The KL of several latents in closed form layer by layer: against every z, against quadrature, and refused."""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.estimators import Layered, Target, UsageError, analytic_kl, create
from elbograd.estimators.pieces import objective
from elbograd.estimators.posteriors import layered_kl
from elbograd.estimators.posteriors.quadrature import hermite_grid
from every_way import every_way
from hierarchies import Hierarchy
from torch import distributions as td

DOWN = {"z1": ("z2",)}
GRAPHS = {
    # sizes, parents in q, parents in p
    "down": ({"z1": 2, "z2": 1}, DOWN, DOWN),
    "q independent": ({"z1": 1, "z2": 2}, {}, DOWN),
    "p independent": ({"z1": 1, "z2": 2}, DOWN, {}),
    "both independent": ({"z1": 1, "z2": 1}, {}, {}),
    "chain": (
        {"z1": 1, "z2": 1, "z3": 1},
        {"z1": ("z2",), "z2": ("z3",)},
        {"z1": ("z2", "z3"), "z2": ("z3",)},
    ),
    "fork": ({"z1": 1, "z2": 1, "z3": 1}, {"z1": ("z3",), "z2": ("z3",)}, {"z1": ("z2",)}),
}
FAMILY = [("score-function", 1), ("constant-baseline[value=-1.5]", 1), ("leave-one-out", 2), ("exact", 1)]


def gradients_of(model, spec, num_samples):
    estimator = create(spec)
    assert estimator.supports(model.q(1), model.target(), num_samples) is None

    def estimate(ways):
        return estimator(model.q(ways), model.target(ways), num_samples)

    weights, found = every_way(estimate)
    value = (weights * found.value).sum()
    surrogate = (weights * found.surrogate).sum()
    return model.gradients(surrogate, model.phi), model.gradients(value, model.theta), value.detach()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("spec", "num_samples"), FAMILY)
def test_means_are_exact_in_every_layer(spec, num_samples, graph):
    model = Hierarchy(*GRAPHS[graph], seed=len(graph))
    exact = model.exact()
    found = gradients_of(model, spec, num_samples)
    torch.testing.assert_close(found[0], model.gradients(exact, model.phi), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[1], model.gradients(exact, model.theta), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[2], exact.detach())


@pytest.mark.parametrize("weight", [0.5, 0.0, {"z1": 0.3, "z2": 2.0, "z3": 0.0}])
@pytest.mark.parametrize("graph", ["chain", "fork"])
def test_a_weight_of_each_latent(graph, weight):
    model = Hierarchy(*GRAPHS[graph], kl_weight=weight)
    found = gradients_of(model, "score-function", 1)[0]
    torch.testing.assert_close(found, model.gradients(model.exact(), model.phi), rtol=1e-9, atol=1e-10)


def test_what_the_closed_form_says_of_phi_itself_counts(monkeypatch):
    """The derivative at fixed parents belongs to the gradient: a detached KL has another mean."""
    model = Hierarchy(*GRAPHS["down"], seed=1)
    whole = layered_kl.inside
    monkeypatch.setattr(
        layered_kl, "inside", lambda *given: {name: kl.detach() for name, kl in whole(*given).items()}
    )
    found = gradients_of(model, "score-function", 1)[0]
    assert not torch.allclose(found, model.gradients(model.exact(), model.phi), rtol=1e-2)


# --- Gaussian layers, against quadrature ---


def normal(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def gaussians():
    """q(z²) q(z¹|z²) and p(z²) p(z¹|z²), of one number each, nothing linear; with φ and θ."""
    generator = torch.Generator().manual_seed(2)
    phi = [torch.randn(2, 1, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4)]
    theta = [torch.randn(1, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    q = Layered(
        {
            "z1": lambda z2: normal(phi[0] * z2.sin(), (phi[1] * z2.cos()).exp()),
            "z2": normal(phi[2], (0.3 * phi[3]).exp()),
        }
    )
    prior = Layered(
        {
            "z1": lambda z2: normal(theta[0] * z2, (0.5 * z2.sin()).exp()),
            "z2": normal(theta[1], theta[2].exp()),
        }
    )
    return q, prior, [*phi, *theta]


def nested_nodes(q, count=80):
    """Points z (N, 2, 2) attached to φ and weights (N,)."""
    points, weights = hermite_grid(1, count)
    upper = q.layers["z2"]
    z2 = upper.mean + upper.stddev * points.unsqueeze(1)  # (n, 2, 1)
    lower = q.layers["z1"](z2)
    z1 = lower.mean + lower.stddev * points.reshape(-1, 1, 1, 1)  # (n, n, 2, 1)
    z = torch.cat((z1, z2.expand_as(z1)), -1).flatten(0, 1)
    return z, (weights.unsqueeze(1) * weights).flatten()


def test_the_kl_of_gaussian_layers_against_quadrature():
    q, prior, leaves = gaussians()
    z, weights = nested_nodes(q)
    column = weights.unsqueeze(1)
    exact = (column * (q.log_prob(z) - prior.log_prob(z))).sum(0)
    target = Target(lambda z: 0 * z.sum(-1), prior)
    conditional = objective.conditional_kls(q, target, z)
    assert set(conditional) == {"z1"}
    found = (column * conditional["z1"]).sum(0) + analytic_kl(q, target)
    torch.testing.assert_close(found, exact)
    for a, b in zip(
        *(torch.autograd.grad(v.sum(), leaves, retain_graph=True) for v in (found, exact)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_reparameterization_takes_the_kl_in_closed_form():
    """Its mean by quadrature: the path is that of every node."""
    q, prior, leaves = gaussians()
    target = Target(lambda z: torch.cos(z).sum(-1), prior, kl_weight={"z1": 0.5, "z2": 2.0})
    assert create("reparameterization").supports(q, target, 1) is None
    z, weights = nested_nodes(q)
    f = objective.integrand(q, target, z, "analytic")
    mean = (weights.unsqueeze(1) * f).sum(0) - analytic_kl(q, target)
    ratio = {name: part - prior.log_probs(z)[name] for name, part in q.log_probs(z).items()}
    exact = torch.cos(z).sum(-1) - 0.5 * ratio["z1"] - 2 * ratio["z2"]
    exact = (weights.unsqueeze(1) * exact).sum(0)
    torch.testing.assert_close(mean, exact)
    for a, b in zip(
        *(torch.autograd.grad(v.sum(), leaves, retain_graph=True) for v in (mean, exact)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    # One estimate of many samples: 5 standard errors of each datum's value, 1e-6 in all.
    torch.manual_seed(0)
    with torch.no_grad():
        each = torch.stack([create("reparameterization")(q, target, 100).value for _ in range(100)])
    assert bool(((each.mean(0) - exact).abs() < 5 * each.std(0) / 10).all())


@pytest.mark.parametrize("batch", [(2,), (3, 2)])
def test_shapes_with_replicates(batch):
    q, prior, _ = gaussians()
    q = q.expand((*batch, 1)[:-1]) if len(batch) > 1 else q
    target = Target(lambda z: z.sum(-1), prior)
    for name in ("reparameterization", "leave-one-out"):
        assert create(name)(q, target, 4).surrogate.shape == batch


# --- Refused ---


def one(scale=1.0):
    return normal(torch.zeros(2, 1), torch.full((1,), scale))


def test_what_has_no_closed_form_is_refused_in_a_line():
    up = {"z1": one(), "z2": lambda z1: normal(z1, torch.ones(1))}
    down = {"z1": lambda z2: normal(z2, torch.ones(1)), "z2": one()}
    cauchy = td.Independent(td.Cauchy(torch.zeros(2, 1), 1.0), 1)
    bits = td.Independent(td.Bernoulli(torch.full((2, 1), 0.5)), 1)
    pairs = [
        (up, down, "z1, which the prior draws given z2 and the posterior before it: use kl=sampled"),
        (down, {**down, "z2": cauchy}, "of z2, Normal against Cauchy: use kl=sampled"),
        ({**down, "z2": bits}, down, "of z2, Bernoulli against Normal: use kl=sampled"),
    ]
    for ours, theirs, words in pairs:
        q, target = Layered(ours), Target(lambda z: z.sum(-1), Layered(theirs))
        for name in ("leave-one-out", "score-function"):
            line = create(name).supports(q, target, 2)
            assert line == f"no closed-form KL {'of ' if not words.startswith('of') else ''}{words}"
        with pytest.raises(UsageError, match="use kl=sampled"):
            create("score-function")(q, target, 2)
    flat = Target(lambda z: z.sum(-1), normal(torch.zeros(2), torch.ones(2)))
    line = create("reparameterization").supports(Layered(up), flat, 1)
    assert line == "no closed-form KL of Layered (z1: Normal, z2: Normal) against Normal: use kl=sampled"
    assert math.isfinite(float(create("reparameterization[kl=sampled]")(Layered(up), flat, 1).value.sum()))


def test_latents_of_other_names_are_refused_whatever_the_kl():
    down = {"z1": lambda z2: normal(z2, torch.ones(1)), "z2": one()}
    prior = Layered({"z2": down["z2"], "z1": down["z1"]})
    for spec in ("reparameterization", "reparameterization[kl=sampled]", "iwae", "vargrad"):
        with pytest.raises(UsageError, match="give both the same names in one order"):
            create(spec)(Layered(down), Target(lambda z: z.sum(-1), prior), 2)
