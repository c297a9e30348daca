"""The fitted quadratic control variate: its formula, what its loss is the gradient of, planted and fitted states.

Under the nodes of a quadrature nothing is random.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.gradients import StateStep, make_ready, seeded
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.as_trained import eta_of
from elbograd.estimators import Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods.quadratic_control_variate import QuadraticControlVariate
from elbograd.estimators.pieces.quadratic import Quadratic
from elbograd.estimators.posteriors import gaussians
from oracles import complex_step, expectation, hermite
from torch import distributions as td
from torch import nn

NODES = 80
K = 1.2
PLACES = [(0.7, 0.3), (-1.1, 2.0), (0.4, 1.3)]
STATES = [(0.0, 0.0, 1.0), (0.9, -0.6, 1.0), (-0.4, 1.7, 0.3)]  # b, d, γ
A = np.array([[0.8, -0.5, 0.3], [-0.5, -1.1, 0.6], [0.3, 0.6, 1.7]])
SLOPE = np.array([0.4, -1.2, 0.7])
MU, SIGMA = np.array([0.5, -0.8, 1.3]), np.array([0.3, 2.0, 0.9])
LOWER = np.array([[0.7, 0.0, 0.0], [-0.4, 1.2, 0.0], [0.3, 0.5, 0.6]])


class WithoutTrace(Quadratic):
    """½ tr(B Cov) forgotten in E f̂."""

    def expectation(self, q):
        return (self.slope * (q.mean - q.mean.detach())).sum(-1)


class WholeTrace(Quadratic):
    """tr(B Cov) for ½ tr(B Cov)."""

    def expectation(self, q):
        return 2 * super().expectation(q) - (self.slope * (q.mean - q.mean.detach())).sum(-1)


class MovesWithPhi(Quadratic):
    """m attached to φ: f̂ has no derivative in the mean."""

    def average(self, q, z):
        delta = z - q.mean
        return (
            (delta * (self.slope + 0.5 * (delta.unsqueeze(-2) @ self.curvature).squeeze(-2))).sum(-1).mean(0)
        )


def gaussian(loc, scale, events=1):
    return td.Independent(td.Normal(loc, scale, validate_args=False), events, validate_args=False)


def leaves(*values, batch):
    every = [torch.as_tensor(v, dtype=torch.float64).expand(*batch, *np.shape(v)).clone() for v in values]
    return [leaf.requires_grad_() for leaf in every]


def cosine(z):
    return torch.cos(K * z).sum(-1)


def planted(q, target, slope, curvature, weight=1.0):
    """An estimator whose f̂ is given: curvature (D, D), weight γ."""
    size = len(slope)
    estimator = QuadraticControlVariate(rank=size)
    estimator.init(q, target)
    top = float(np.linalg.eigvalsh(curvature)[-1])
    values, vectors = np.linalg.eigh(top * np.eye(size) - curvature)
    # One eigenvalue is 0: D − 1 columns are enough.
    factors = (vectors * np.sqrt(values.clip(0)))[:, 1:].T
    coefficients = torch.as_tensor(np.concatenate([slope, np.full(size, top), factors.ravel()]))
    with torch.no_grad():
        estimator.unit.fill_(1.0)
        estimator.shared.copy_(coefficients)
        estimator.gain.fill_(weight)
        estimator.power.fill_(1.0)
    return estimator.eval()


def at_nodes(estimator, place, target, monkeypatch, nodes=NODES):
    """The estimate for each node of ε as a datum, S = 1, its gradients (N, 2) in (μ, σ), and the weights."""
    points, weights = hermite(1, nodes)
    noise = torch.as_tensor(points)[None]
    with monkeypatch.context() as patch:
        patch.setattr(gaussians, "standard_normal", lambda like, n: noise + torch.zeros(n, *like.shape))
        phi = leaves(*([v] for v in place), batch=(nodes,))
        estimate = estimator(gaussian(*phi), target, 1)
        draws = torch.cat(torch.autograd.grad(estimate.surrogate.sum(), phi, retain_graph=True), -1)
    return estimate, draws.numpy(), weights


def by_hand(mu, sigma, b, d, weight):
    """h(ε) of one sample of cosine in (μ, σ): ∇f − γ (∇f̂ − ∇E f̂)."""

    def h(eps):
        slope = -K * np.sin(K * (mu + sigma * eps))
        in_mu = slope - weight * d * sigma * eps
        in_sigma = slope * eps - weight * ((b + d * sigma * eps) * eps - d * sigma)
        return np.concatenate([in_mu, in_sigma], 1)

    return h


def exact_gradient(mu, sigma):
    """E cos(K z) = exp(−½ K²σ²) cos(K μ)."""
    decay = math.exp(-0.5 * (K * sigma) ** 2)
    return np.array([-K * decay * math.sin(K * mu), -(K**2) * sigma * decay * math.cos(K * mu)])


# --- The estimate ---


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("place", PLACES)
def test_every_draw_and_the_mean_whatever_the_state(place, state, monkeypatch):
    b, d, weight = state
    estimator = planted(gaussian(*leaves([0.0], [1.0], batch=(1,))), Target(cosine), [b], [[d]], weight)
    estimate, draws, weights = at_nodes(estimator, place, Target(cosine), monkeypatch)
    np.testing.assert_allclose(draws, by_hand(*place, *state)(hermite(1, NODES)[0]), atol=1e-11)
    np.testing.assert_allclose(weights @ draws, exact_gradient(*place), atol=1e-11)
    value = math.exp(-0.5 * (K * place[1]) ** 2) * math.cos(K * place[0])
    np.testing.assert_allclose(weights @ estimate.value.detach().numpy(), value, atol=1e-11)


@pytest.mark.parametrize("wrong", [WithoutTrace, WholeTrace, MovesWithPhi])
def test_a_wrong_quadratic_is_seen_in_the_mean(wrong, monkeypatch):
    estimator = planted(gaussian(*leaves([0.0], [1.0], batch=(1,))), Target(cosine), [0.9], [[-0.6]])
    right = estimator._quadratic
    monkeypatch.setattr(estimator, "_quadratic", lambda target: wrong(*right(target)))
    monkeypatch.setattr(Quadratic, "detach", lambda self: type(self)(*(part.detach() for part in self)))
    _, draws, weights = at_nodes(estimator, PLACES[2], Target(cosine), monkeypatch)
    assert np.abs(weights @ draws - exact_gradient(*PLACES[2])).max() > 0.1


def quadratic(z):
    return z @ torch.as_tensor(SLOPE) - 0.5 * ((z @ torch.as_tensor(A)) * z).sum(-1)


def test_no_variance_where_the_fit_is_planted_exact():
    """f = bᵀz − ½ zᵀAz, A indefinite: ∂μ = b − Aμ, ∂σ = −diag(A) σ, ∂L = −tril(A L)."""
    torch.manual_seed(0)
    target = Target(quadratic)
    phi = leaves(MU, SIGMA, batch=(5, 4))
    estimator = planted(gaussian(*phi), target, SLOPE - A @ MU, -A)
    surrogate = estimator(gaussian(*phi), target, 2).surrogate
    in_mu, in_sigma = torch.autograd.grad(surrogate.sum(), phi)
    np.testing.assert_allclose(in_mu, np.broadcast_to(SLOPE - A @ MU, (5, 4, 3)), atol=1e-11)
    np.testing.assert_allclose(in_sigma, np.broadcast_to(-np.diag(A) * SIGMA, (5, 4, 3)), atol=1e-11)

    phi = leaves(MU, LOWER, batch=(6,))
    surrogate = estimator(td.MultivariateNormal(phi[0], scale_tril=phi[1]), target, 1).surrogate
    in_mu, in_lower = torch.autograd.grad(surrogate.sum(), phi)
    np.testing.assert_allclose(in_mu, np.broadcast_to(SLOPE - A @ MU, (6, 3)), atol=1e-11)
    np.testing.assert_allclose(in_lower.tril(), np.broadcast_to(np.tril(-A @ LOWER), (6, 3, 3)), atol=1e-11)


def test_a_posterior_that_is_no_gaussian():
    """Gamma(a, b), f = z² − z: E f = (a + a²)/b² − a/b; its derivatives, without noise."""
    torch.manual_seed(0)
    a, b = 2.3, 0.8
    phi = leaves([a], [b], batch=(6,))
    target = Target(lambda z: (z.square() - z).sum(-1))
    q = td.Independent(td.Gamma(*phi), 1)
    estimator = planted(q, target, [2 * a / b - 1], [[2.0]])
    found = torch.cat(torch.autograd.grad(estimator(q, target, 1).surrogate.sum(), phi), -1)
    exact = [(1 + 2 * a) / b**2 - 1 / b, -2 * (a + a**2) / b**3 + a / b**2]
    np.testing.assert_allclose(
        found, np.broadcast_to(exact, (6, 2)), rtol=1e-5
    )  # torch's implicit derivative


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_before_the_first_update_it_is_reparameterization(kl):
    zero = torch.zeros(3, dtype=torch.float64)
    found = []
    for name in ("quadratic-control-variate", "reparameterization"):
        theta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        phi = leaves(MU, SIGMA, batch=(5, 4))
        target = Target(lambda z, theta=theta: torch.sin(theta * z).sum(-1), gaussian(zero, zero + 1.3))
        estimator = create(name, kl=kl).eval()
        estimator.init(gaussian(*phi), target)
        torch.manual_seed(1)
        estimate = estimator(gaussian(*phi), target, 3)
        parts = torch.autograd.grad(estimate.surrogate.sum(), (*phi, theta))
        found.append((estimate.value, *parts))
        assert estimate.surrogate is estimate.value
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


# --- The fit ---


def variance(mu, sigma, b, d, weight=1.0):
    """tr Cov h of one sample, by quadrature; analytic in b and d."""
    points, weights = hermite(1, NODES)
    eps = points[:, 0]
    slope = -K * np.sin(K * (mu + sigma * eps))
    columns = (
        slope - weight * d * sigma * eps,
        slope * eps - weight * ((b + d * sigma * eps) * eps - d * sigma),
    )
    return sum(weights @ column**2 - (weights @ column) ** 2 for column in columns)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", STATES)
def test_the_gradient_of_the_loss_is_that_of_the_variance(state, place, monkeypatch):
    """In (b, d), in expectation over ε, by complex steps through the quadrature; γ does not enter."""
    b, d, weight = state
    estimator = planted(
        gaussian(*leaves([0.0], [1.0], batch=(1,))), Target(cosine), [b], [[d]], weight
    ).train()
    estimate, _, weights = at_nodes(estimator, place, Target(cosine), monkeypatch)
    expected = [
        complex_step(lambda v: variance(*place, v, d), b),
        complex_step(lambda v: variance(*place, b, v), d),
    ]
    loss = torch.as_tensor(weights) @ estimate.aux_loss
    (found,) = torch.autograd.grad(loss, estimator.shared)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_the_weight_goes_to_where_the_variance_is_least(monkeypatch):
    """γ* = E gain / E power: −V'(0)/V''(0) for the parabola V(γ)."""
    place, (b, d) = PLACES[2], (0.9, -0.6)
    estimator = planted(gaussian(*leaves([0.0], [1.0], batch=(1,))), Target(cosine), [b], [[d]]).train()
    estimate, _, weights = at_nodes(estimator, place, Target(cosine), monkeypatch)
    gain, power = (weights @ estimate.info[name].numpy() for name in ("gain", "power"))
    low, middle, high = (variance(*place, b, d, weight) for weight in (-1.0, 0.0, 1.0))
    best = 0.5 * (low - high) / (low - 2 * middle + high)
    np.testing.assert_allclose(gain / power, best, rtol=1e-9)
    assert abs(best - 1) > 0.1
    with torch.no_grad():
        estimator.gain.zero_()
        estimator.power.zero_()
    for _ in range(3):
        estimator.update(estimate)
    ratio = estimate.info["gain"].mean() / estimate.info["power"].mean()
    torch.testing.assert_close(estimator.gain / estimator.power, ratio)


def test_what_is_fixed_counts_in_no_variance(monkeypatch):
    """σ without a gradient: b, which acts in σ alone, is not trained."""
    target = Target(cosine)
    loc, scale = leaves([0.4], [1.3], batch=(50,))
    estimator = planted(gaussian(loc, scale), target, [0.9], [[-0.6]]).train()
    torch.manual_seed(0)
    for learned, moved in ((scale, True), (scale.detach(), False)):
        loss = estimator(gaussian(loc, learned), target, 1).aux_loss.mean()
        in_b, in_d = torch.autograd.grad(loss, estimator.shared)[0]
        assert in_d != 0
        assert bool(in_b != 0) == moved
    assert torch.isfinite(estimator(gaussian(loc.detach(), scale.detach()), target, 1).aux_loss).all()


@pytest.mark.parametrize(
    ("problem", "factor"),
    [  # measured: 218, 51 and 3.7
        ("quadratic[loc=0.7,scale=0.6,k=1.5]", 100),
        ("linear-gaussian[latent_dim=3,data_dim=4]", 10),
        ("small-vae", 1.5),
    ],
)
def test_the_variance_falls_with_the_fit(problem, factor):
    """Below plain reparameterization's, divided by the factor, after 100 steps on the batch of 8 measured."""
    problem = load_problem(problem)
    size = min(8, getattr(problem, "default_batch_size", 8))
    x = next(iter(problem.batches("train", size, torch.Generator().manual_seed(0))))
    fitted = create("quadratic-control-variate")
    with seeded(1, x.device):
        make_ready(problem, fitted, x, eta_of(problem, x), 1)
        step = StateStep(problem, fitted, 1)
        for _ in range(100):
            step(x)
    plain, less = (
        measure_variance(problem, e, x, replicates=1000, warmup=0, seed=1).total
        for e in ("reparameterization", fitted)
    )
    assert factor * less < plain


def test_data_with_costs_of_their_own_need_features():
    """f_i = −½ (z − x_i)²: one slope for all cannot fit, the network's can."""
    torch.manual_seed(0)
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).unsqueeze(-1)
    spreads = {}
    for features in (x, None):
        target = Target(lambda z: -0.5 * (z - x).square().sum(-1), features=features)
        estimator = create("quadratic-control-variate").train()
        phi = leaves([0.2], [0.8], batch=(16,))
        estimator.init(gaussian(*phi), target)
        optimizer = torch.optim.Adam(estimator.parameters(), lr=3e-2)
        for _ in range(120):
            estimate = estimator(gaussian(*phi), target, 1)
            optimizer.zero_grad()
            estimate.aux_loss.mean().backward()
            optimizer.step()
            estimator.update(estimate)
        phi = leaves([0.2], [0.8], batch=(500, 16))
        surrogate = estimator.eval()(gaussian(*phi), target, 1).surrogate
        (in_sigma,) = torch.autograd.grad(surrogate.sum(), phi[1])
        spreads[features is not None] = float(in_sigma.var(0).mean())
    # Without: Σ (x_i − x̄)²/16 = 3.4, the part of Var (x_i − 0.2) ε that the mean slope leaves.
    assert spreads[False] > 3
    assert spreads[True] < 0.05 * spreads[False]


def test_the_state_rests_while_it_is_measured():
    problem = load_problem("small-vae")
    x = next(iter(problem.batches("train", 4, torch.Generator().manual_seed(0))))
    estimator = create("quadratic-control-variate")
    eta = problem.encoder(x).detach()
    estimator.init(problem.posterior(eta), problem.target(x))
    before = copy.deepcopy(estimator.state_dict())
    step = StateStep(problem, estimator, 1)
    for _ in range(5):
        step.at(eta, problem.target(x))
    warm = copy.deepcopy(estimator.state_dict())
    assert all(not torch.equal(before[name], warm[name]) for name in ("gain", "power", "network.2.bias"))
    measure_variance(problem, estimator.eval(), x, replicates=50, warmup=0)
    assert all(torch.equal(value, warm[name]) for name, value in estimator.state_dict().items())


# --- What surrounds it ---


@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("features", [None, (4, 3)])
def test_shapes_of_events_and_of_the_state(rank, features):
    """At most D − 1 columns; an event of any shape is a vector of D = 6."""
    log_scale = torch.zeros(5, 4, 3, 2, requires_grad=True)
    q = gaussian(torch.zeros(5, 4, 3, 2), log_scale.exp(), 2)
    target = Target(
        lambda z: z.square().sum((-1, -2)), features=None if features is None else torch.ones(features)
    )
    estimator = create("quadratic-control-variate", rank=rank)
    estimator.init(q, target)
    assert len(estimator.unit) == (2 + min(rank, 5)) * 6
    estimate = estimator(q, target, 2)
    assert estimate.surrogate.shape == estimate.aux_loss.shape == (5, 4)
    assert estimate.surrogate.dtype == torch.float32
    assert torch.autograd.grad(estimate.surrogate.sum(), log_scale)[0].isfinite().all()
    one = create("quadratic-control-variate")
    one.init(gaussian(torch.zeros(2, 1), torch.ones(2, 1)), Target(lambda z: 0 * z.sum(-1)))
    assert len(one.unit) == 2
    assert isinstance(one.shared, nn.Parameter)
    assert one.unit.eq(1).all()  # a constant f gives no scale


def test_it_is_shown_the_problem_before_the_first_estimate():
    q = gaussian(torch.zeros(4, 2), torch.ones(4, 2))
    with pytest.raises(UsageError, match=r"call init\(q, target\) before the first estimate"):
        create("quadratic-control-variate")(q, Target(lambda z: z.sum(-1)), 1)


def test_the_oracle_of_the_variance_is_that_of_the_draws():
    for place in PLACES:
        covariance = expectation(by_hand(*place, 0.9, -0.6, 1.0), 1, NODES)[1]
        np.testing.assert_allclose(variance(*place, 0.9, -0.6), np.trace(covariance), rtol=1e-10)
