"""Local reparameterization and Flipout: networks drawn layer by layer, and what is refused.

Variances are held against closed forms in tests/problems/test_weights.py; here means are, within 5 standard errors of
every coordinate (false alarms below 1e-6 each; the seed is fixed).
"""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks.oracles import weight_variances
from elbograd.benchmarks.oracles.weight_variances import Regression
from elbograd.estimators import Estimate, Layered, Linear, Network, Target, UsageError, analytic_kl, create
from elbograd.estimators.methods import flipout, local_reparameterization
from elbograd.estimators.network import affine
from elbograd.estimators.pieces.weights import through_layers
from elbograd.estimators.posteriors.shared import SharedDraws
from elbograd.estimators.testing import estimator_checks
from torch import distributions as td

NAMES = ("local-reparameterization", "flipout")
DRAWS = 20_000


def normal(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def of(draw):
    """An estimator that draws layers by a function."""

    class Drawn(flipout.Flipout):
        def forward(self, q, target, num_samples):
            elbo = through_layers(q, target.network, num_samples, draw).mean(0) - analytic_kl(q, target)
            return Estimate(elbo, elbo)

    return Drawn


def variance_for_scale(weights, inputs, rows):
    """Wrong: m + σ² ξ."""
    layer, variance = weights.layer, weights.scale.square()
    mean = affine(inputs, layer.matrix(weights.loc), layer.offset(weights.loc), weights.together)
    spread = affine(inputs.square(), layer.matrix(variance), layer.offset(variance), weights.together)
    return mean + spread * torch.randn((*rows, layer.outputs), dtype=mean.dtype)


def same_signs(weights, inputs, rows):
    """Wrong: the data of a batch have the signs of the first."""
    signs = flipout._signs
    try:
        flipout._signs = lambda shape, like: signs((*shape[:-2], 1, shape[-1]), like).expand(shape)
        return flipout.Flipout.outputs(weights, inputs, rows)
    finally:
        flipout._signs = signs


def test_the_slip_of_the_variance_for_the_scale_shows():
    for draw, right in (
        (variance_for_scale, False),
        (local_reparameterization.LocalReparameterization.outputs, True),
    ):
        (check,) = (c for c in estimator_checks(of(draw)) if c.name == "unbiased[weights]")
        if right:
            check()
        else:
            with pytest.raises(AssertionError, match="biased: gradient in η"):
                check()


@pytest.mark.parametrize(("draw", "right"), [(flipout.Flipout.outputs, True), (same_signs, False)])
def test_signs_that_are_the_same_for_all_data_show_in_the_variance(draw, right):
    torch.manual_seed(1)
    u, y = torch.randn(8, 2).double(), torch.randn(8).double()
    leaf = torch.tensor([0.3, -0.6, -0.4, 0.2]).double().repeat(DRAWS, 1, 1).requires_grad_()
    loc, log_scale = leaf.chunk(2, -1)
    network = Network(
        {"w": Linear(2, 1, False)}, lambda apply: -10 * (y - apply("w", u).squeeze(-1)) ** 2
    )  # N/(2 τ²)
    target = Target(network.dense, network=network)
    estimate = of(draw)()(SharedDraws(normal(loc, log_scale.exp()), 8), target, 1)
    (h,) = torch.autograd.grad(estimate.surrogate.mean(-1).sum(), leaf)
    at = Regression(u, y, leaf[0, 0, :2].detach(), leaf[0, 0, 2:].detach().exp(), 1.0, 20)
    squares = (h - h.mean(0)).square().sum((-1, -2))
    distance = float(squares.mean() - weight_variances.flipout(at).sum()) / float(squares.std() / DRAWS**0.5)
    assert (abs(distance) < 4.5) is right


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_latent_in_front_of_the_weights(name, shared):
    """f = −(y − w z)²/2 has E f = −(y² − 2 y μ_w μ_z + (μ_w² + σ_w²)(μ_z² + σ_z²))/2."""
    torch.manual_seed(2)
    y = torch.tensor([0.7, -1.2, 2.0]).double()
    w = torch.tensor([0.8, -0.3]).double().requires_grad_()
    z = torch.tensor([[0.5, 0.1], [-0.4, -0.7], [1.1, 0.3]]).double().requires_grad_()

    def moments(part):
        return part[..., :1], part[..., 1:].exp()

    rows = (DRAWS, 1 if shared else 3, 2)
    of_w = normal(*moments(w.expand(rows)))
    q = Layered({"w": SharedDraws(of_w, 3) if shared else of_w, "z": normal(*moments(z.expand(DRAWS, 3, 2)))})
    unit = normal(torch.zeros(1).double(), torch.ones(1).double())
    network = Network(
        {"only": Linear(1, 1, False)},
        lambda apply, z: -0.5 * (y - apply("only", z).squeeze(-1)) ** 2,
        latent="w",
    )
    weights = {"w": 1.0, "z": 7.0}
    target = Target(
        lambda joined: network.dense(joined[..., :1], z=joined[..., 1:]),
        Layered({"w": unit, "z": unit}),
        kl_weight=weights,
        network=network,
    )
    estimator = create(name)
    assert estimator.supports(q, target, 2) is None
    value = estimator(q, target, 2).surrogate  # (R, 3)
    (mu, sigma), (m, s) = moments(w), moments(z)

    def kl(mean, scale):
        return 0.5 * (mean**2 + scale**2 - 1) - scale.log()

    exact = -0.5 * (y**2 - 2 * y * (mu * m[:, 0]) + (mu**2 + sigma**2) * (m**2 + s**2)[:, 0])
    exact = exact - kl(mu, sigma) - 7 * kl(m, s)[:, 0]
    for found, leaf in ((value.mean(-1), w), (value.mean(-1), z)):
        blocks = torch.stack(
            [
                torch.autograd.grad(part.mean(), leaf, retain_graph=True)[0].flatten()
                for part in found.split(DRAWS // 50)
            ]
        )
        truth = torch.autograd.grad(exact.mean(), leaf, retain_graph=True)[0].flatten()
        stderr = blocks.std(0) / len(blocks) ** 0.5
        assert float(((blocks.mean(0) - truth) / stderr).abs().max()) < 5


def test_a_network_is_what_loops_over_data_and_weights_make():
    torch.manual_seed(3)
    x = torch.randn(4, 3)
    layers = {"a": Linear(3, 4), "b": Linear(4, 1, bias=False)}
    network = Network(layers, lambda apply: apply("b", apply("a", x).tanh()).squeeze(-1))
    w = torch.randn(2, 4, network.size)
    found = network.dense(w)
    for s in range(2):
        for i in range(4):
            first, offset, second = w[s, i, :12].reshape(3, 4), w[s, i, 12:16], w[s, i, 16:]
            by_hand = torch.tanh(x[i] @ first + offset) @ second
            torch.testing.assert_close(found[s, i], by_hand)
    shared = w[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(network.dense(shared), network.dense(shared.clone()))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_zero_have_finite_gradients(name):
    eta = torch.zeros(2, 1, requires_grad=True)
    network = Network({"w": Linear(1, 1, False)}, lambda apply: apply("w", torch.zeros(2, 1)).squeeze(-1))
    estimate = create(name)(normal(eta, eta.exp()), Target(network.dense, network=network), 3)
    (slope,) = torch.autograd.grad(estimate.surrogate.sum(), eta)
    assert bool(slope.isfinite().all())


def twice(apply):
    return apply("w", apply("w", torch.ones(2, 1))).squeeze(-1)


def elsewhere(apply):
    return apply("v", torch.ones(2, 1)).squeeze(-1)


def of_many_vectors(apply):
    return apply("w", torch.ones(2, 7, 1)).sum((-1, -2))


@pytest.mark.parametrize(
    ("log_likelihood", "why"),
    [
        (twice, "'w' is applied twice"),
        (elsewhere, "'v' is none of its layers"),
        (of_many_vectors, r"inputs of shape \(2, 7, 1\), expected \(S, \*batch, in\) = \(3, 2, 1\)"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_networks_that_cannot_be_drawn_layer_by_layer(name, log_likelihood, why):
    network = Network({"w": Linear(1, 1, False)}, log_likelihood)
    with pytest.raises(UsageError, match=why):
        create(name)(normal(torch.zeros(2, 1), 1.0), Target(network.dense, network=network), 3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name):
    network = Network({"w": Linear(1, 1, False)}, elsewhere)
    q = normal(torch.zeros(2, 1), torch.ones(1))
    full = td.MultivariateNormal(torch.zeros(2, 1), torch.eye(1))
    wide = normal(torch.zeros(2, 3), torch.ones(3))
    cauchy = td.Independent(td.Cauchy(torch.zeros(1), torch.ones(1)), 1)
    refuses = create(name).supports
    assert "Target.network" in refuses(q, Target(network.dense), 1)
    assert "not a MultivariateNormal" in refuses(full, Target(network.dense, network=network), 1)
    assert "has 1 weights, the posterior 3" in refuses(wide, Target(network.dense, network=network), 1)
    assert "no closed-form KL" in refuses(q, Target(network.dense, cauchy, network=network), 1)
