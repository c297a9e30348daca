"""Gumbel-softmax, straight-through Gumbel-softmax and Gumbel-Rao: their means are integrals over the noise.

The noise of an estimate is replaced by the nodes of a quadrature, an entry of the batch each, so that means are
compared to rounding or to the quadrature's error.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from discrete_paths import bernoulli, one_hot
from elbograd.benchmarks.oracles.gumbel_means import (
    gumbel_softmax_gradient,
    gumbel_softmax_value,
    logistic_nodes,
    straight_through_gumbel_gradient,
)
from elbograd.estimators import Target, create
from elbograd.estimators.methods.gumbel_rao import GumbelRao
from elbograd.estimators.methods.gumbel_softmax import GumbelSoftmax
from elbograd.estimators.methods.straight_through_gumbel_softmax import StraightThroughGumbelSoftmax
from elbograd.estimators.pieces import relaxations
from elbograd.estimators.pieces.relaxations import along_softmax, drawn, log_probs, perturbed, perturbed_given
from torch import distributions as td

COINS = [(0.1, 1.0), (0.1, 0.1), (0.3, 0.5), (0.7, 2.0), (0.999, 0.2)]  # p, τ


def square(z):
    return (z - 0.45).square()


def square_slope(z):
    return 2 * (z - 0.45)


def wave(z):
    return (3 * z + 0.5).sin() + z.exp()


def wave_slope(z):
    return 3 * (3 * z + 0.5).cos() + z.exp()


FUNCTIONS = [(square, square_slope), (wave, wave_slope)]


def logit_of(p):
    return math.log(p) - math.log1p(-p)


def gradient(estimator, q, leaf, f, num_samples=1, prior=None):
    estimate = estimator(q, Target(f, prior), num_samples)
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0], estimate.value.detach()


# --- One Bernoulli variable: an integral over one logistic variable ---


def mean_over_noise(monkeypatch, estimator, f, logit, temperature):
    """Mean of the gradient and of the value: noise E with log E₀ − log E₁ = X at the nodes of X."""
    x, weights = logistic_nodes(logit, temperature)
    noise = torch.stack((torch.zeros_like(x), -x), -1).exp().reshape(1, -1, 1, 2)
    monkeypatch.setattr(relaxations, "exponentials", lambda like, num: noise)
    leaf = torch.full((len(x), 1), logit, dtype=torch.float64, requires_grad=True)
    h, value = gradient(estimator, bernoulli(leaf), leaf, lambda z: f(z).sum(-1))
    return float(weights @ h[:, 0]), float(weights @ value)


@pytest.mark.parametrize(("f", "slope"), FUNCTIONS)
@pytest.mark.parametrize(("p", "tau"), COINS)
def test_gumbel_softmax_is_unbiased_for_the_relaxed_objective(p, tau, f, slope, monkeypatch):
    mean, value = mean_over_noise(monkeypatch, create("gumbel-softmax", temperature=tau), f, logit_of(p), tau)
    assert value == pytest.approx(gumbel_softmax_value(f, logit_of(p), tau), rel=1e-10)
    assert mean == pytest.approx(gumbel_softmax_gradient(slope, logit_of(p), tau), rel=1e-9)
    ends = [gumbel_softmax_value(f, logit_of(p) + step, tau) for step in (1e-4, -1e-4)]
    assert mean == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-5)


@pytest.mark.parametrize(("f", "slope"), FUNCTIONS)
@pytest.mark.parametrize(("p", "tau"), COINS)
def test_the_mean_of_straight_through_gumbel_softmax(p, tau, f, slope, monkeypatch):
    estimator = create("straight-through-gumbel-softmax", temperature=tau)
    mean, value = mean_over_noise(monkeypatch, estimator, f, logit_of(p), tau)
    assert mean == pytest.approx(straight_through_gumbel_gradient(slope, logit_of(p), tau), rel=1e-9)
    ends = f(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert value == pytest.approx(float((1 - p) * ends[0] + p * ends[1]), rel=1e-9)  # the ELBO, unrelaxed


@pytest.mark.parametrize("tau", [0.3, 1.0, 100.0])
def test_the_nodes_integrate_the_noise(tau):
    x, weights = logistic_nodes(logit_of(0.2), tau)
    moments = [float(weights @ x**k) for k in range(5)]
    assert moments == pytest.approx([1, 0, math.pi**2 / 3, 0, 7 * math.pi**4 / 15], rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("mean", "at_one", "at_a_tenth"),
    [(straight_through_gumbel_gradient, -0.0566, -0.0009), (gumbel_softmax_gradient, -0.0318, 0.0019)],
)
def test_the_sign_is_wrong_where_a_state_is_rare(mean, at_one, at_a_tenth):
    """f = (z − .45)², p = .1: exactly .009."""
    assert mean(square_slope, logit_of(0.1), 1.0) == pytest.approx(at_one, abs=5e-5)
    assert mean(square_slope, logit_of(0.1), 0.1) == pytest.approx(at_a_tenth, abs=5e-5)
    assert mean(square_slope, logit_of(0.1), 0.001) == pytest.approx(0.009, rel=0.02)


@pytest.mark.parametrize("temperature", [3.0, 0.2])
def test_the_backward_temperature_is_the_one_that_counts(temperature):
    """Forward the argmax is the same at all, so that the draws are too."""

    def draws(specification):
        torch.manual_seed(0)
        leaf = torch.full((500, 1), 0.3, dtype=torch.float64, requires_grad=True)
        return gradient(create(specification), bernoulli(leaf), leaf, lambda z: wave(z).sum(-1), 3)

    name = "straight-through-gumbel-softmax"
    decoupled = draws(f"{name}[temperature={temperature},backward_temperature=0.7]")
    torch.testing.assert_close(decoupled, draws(f"{name}[temperature=0.7]"), rtol=0, atol=0)
    alone = draws(f"{name}[temperature={temperature}]")
    assert torch.equal(alone[1], decoupled[1])
    assert not torch.equal(alone[0], decoupled[0])


# --- Gumbel-Rao: an integral over exponential variables, given the state ---

_STEP, _FROM, _TO = 0.5, -22.0, 4.0  # of log E: the trapezoidal rule is off by 3e-9, the ends by as much


def exponential_nodes(k):
    """E (N, k) and weights (N,): the trapezoidal rule in log E, whose density is exp(x − eˣ)."""
    x = torch.arange(_FROM, _TO, _STEP, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[x] * k)
    return nodes.exp(), (nodes - nodes.exp()).sum(-1).exp() * _STEP**k


def rao_mean(monkeypatch, estimator, logits, f):
    """Exact mean of the gradient in the logits (K,) of one variable."""
    k, total = len(logits), torch.zeros_like(logits)
    e, weights = exponential_nodes(k)
    monkeypatch.setattr(relaxations, "exponentials", lambda like, num: e.reshape(1, 1, -1, 1, k))
    for state, pi in enumerate(logits.softmax(-1)):
        leaf = logits.expand(len(e), 1, k).clone().requires_grad_()
        q = one_hot(leaf)
        z = torch.eye(k, dtype=torch.float64)[state].expand(1, len(e), 1, k)
        q.sample = lambda shape, z=z: z
        total += pi * (weights @ gradient(estimator, q, leaf, f)[0][:, 0])
    return total


@pytest.mark.parametrize(("p", "tau"), [(0.1, 1.0), (0.3, 0.7), (0.8, 2.0)])
def test_gumbel_rao_has_the_mean_of_straight_through_gumbel_softmax(p, tau, monkeypatch):
    expected = straight_through_gumbel_gradient(wave_slope, logit_of(p), tau)
    logits = torch.tensor([0.0, logit_of(p)], dtype=torch.float64)

    def mean(kind):
        estimator = kind(temperature=tau, inner_samples=1)
        return rao_mean(monkeypatch, estimator, logits, lambda z: wave(z[..., 0, 1]))

    torch.testing.assert_close(mean(GumbelRao), expected * logits.new_tensor([-1, 1]), rtol=1e-6, atol=1e-7)
    assert abs(float(mean(ThroughTheNoise)[1]) - expected) > 0.01 * abs(expected)


class ThroughTheNoise(GumbelRao):
    """The total derivative, through the noise given z as a function of φ too."""

    def codes(self, q, variables, num_samples):
        z = drawn(q, variables, num_samples)
        e = relaxations.exponentials(z, self.inner_samples)
        least = (e * z).sum(-1, keepdim=True)
        noisy = -torch.where(z > 0, least, e / log_probs(variables).exp() + least).log()
        soft = (noisy / self.temperature).softmax(-1).mean(0)
        return z + soft - soft.detach()


LOGITS = torch.tensor([0.9, -0.6, 0.2], dtype=torch.float64)


def curved(z):
    """Of one variable of three states."""
    z = z[..., 0, :]
    return (z @ torch.tensor([1.0, -2.0, 0.7], dtype=z.dtype)).sin() + (z[..., 0] - 0.4).square() * z[
        ..., 2
    ].exp()


def many(estimator, n=2**17):
    torch.manual_seed(1)
    leaf = LOGITS.expand(n, 1, 3).clone().requires_grad_()
    return gradient(estimator, one_hot(leaf), leaf, curved)[0][:, 0]


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_of_three_states_all_have_the_mean_that_quadrature_gives(tau, monkeypatch):
    """Each of 9 coordinates a parameter raises a false alarm with probability 6e-7 (5 standard errors)."""
    with monkeypatch.context() as patched:
        exact = rao_mean(patched, GumbelRao(tau, 1), LOGITS, curved)

    def deviation(estimator):
        draws = many(estimator)
        return float(((draws.mean(0) - exact) / draws.std(0) * len(draws) ** 0.5).abs().max())

    for right in (StraightThroughGumbelSoftmax(tau), GumbelRao(tau, 1), GumbelRao(tau, 8)):
        assert deviation(right) < 5
    for wrong in (
        GumbelSoftmax(tau),
        Unconditional(tau, 8),
        ThroughTheNoise(tau, 8),
        GumbelRao(1.5 * tau, 8),
    ):
        assert deviation(wrong) > 10


class Unconditional(GumbelRao):
    """Noise that knows nothing of z."""

    def codes(self, q, variables, num_samples):
        z = drawn(q, variables, num_samples)
        noisy = perturbed(log_probs(variables).detach(), self.inner_samples * num_samples)
        noisy = noisy.reshape(self.inner_samples, num_samples, *noisy.shape[1:])
        path = along_softmax((noisy / self.temperature).softmax(-1), variables.logits)
        return z + path.mean(0) / self.temperature


def test_gumbel_rao_is_in_law_straight_through_gumbel_softmax():
    """Kolmogorov-Smirnov distances of 2 × 2¹⁷ draws stay under .0106 but with probability 8e-7 a coordinate."""
    one, same, less = (
        many(e) for e in (StraightThroughGumbelSoftmax(0.5), GumbelRao(0.5, 1), GumbelRao(0.5, 8))
    )

    def distance(a, b):
        points = torch.cat((a, b)).sort().values
        cdfs = [torch.searchsorted(c.sort().values, points, right=True) / len(c) for c in (a, b)]
        return float((cdfs[0] - cdfs[1]).abs().max())

    assert all(distance(one[:, c], same[:, c]) < 0.0106 for c in range(3))
    assert all(distance(one[:, c], less[:, c]) > 0.02 for c in range(3))


def test_gumbel_rao_has_less_variance_the_more_it_averages():
    """Standard errors of these variances are under 1% of them."""
    variances = [float(many(GumbelRao(0.5, k), 2**15).var(0).sum()) for k in (1, 4, 16)]
    assert variances[0] > 1.2 * variances[1] > 1.2 * variances[2]


# --- Noise given the state ---


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 5, 1000])
def test_the_largest_entry_is_the_state_given(k, kind):
    torch.manual_seed(0)
    log_pi = (20 * torch.randn(3, 1, k, dtype=kind)).log_softmax(-1)
    states = torch.eye(k, dtype=kind)[torch.randint(k, (50, 3, 1))]  # the least probable ones too
    noisy = perturbed_given(states, log_pi, 4)
    assert noisy.dtype == kind
    assert noisy.shape == (4, 50, 3, 1, k)
    top = noisy.amax(-1, keepdim=True)
    assert torch.equal(((noisy == top) * states).sum(-1), torch.ones(4, 50, 3, 1, dtype=kind))
    assert bool(noisy.isfinite().all())


def test_what_is_drawn_given_a_sample_is_what_is_drawn_without_one():
    """Means of three bounded functions of three coordinates and their order; 5 standard errors, 6e-7 each."""
    torch.manual_seed(0)
    log_pi = LOGITS.log_softmax(-1).reshape(1, 3)
    n = 2**17
    free = perturbed(log_pi, n)[:, 0]
    states = torch.nn.functional.one_hot(torch.multinomial(log_pi[0].exp(), n, replacement=True), 3).double()
    given = perturbed_given(states[:, None], log_pi, 1)[0, :, 0]
    exact = perturbed(log_pi, 1)
    assert exact.shape == (1, 1, 3)

    def features(x):
        pairs = [x[:, a] - x[:, b] for a, b in itertools.combinations(range(3), 2)]
        return torch.stack([*x.T, *pairs, x.amax(-1), x.amin(-1)], -1).tanh()

    a, b = features(free), features(given)
    error = ((a.var(0) + b.var(0)) / n).sqrt()
    assert float(((a.mean(0) - b.mean(0)) / error).abs().max()) < 5
    shifted = features(given + 0.1)
    assert float(((a.mean(0) - shifted.mean(0)) / error).abs().max()) > 10


def test_the_noise_is_gumbels():
    """Of log π + G the mean is log π + γ and the variance π²/6; 5 standard errors."""
    torch.manual_seed(0)
    noise = perturbed(torch.zeros(1, 2, dtype=torch.float64), 2**18).flatten()
    n = len(noise)
    assert abs(float(noise.mean()) - 0.5772156649) < 5 * math.sqrt(math.pi**2 / 6 / n)
    spread = (noise - noise.mean()).square()
    assert abs(float(spread.mean()) - math.pi**2 / 6) < 5 * float(spread.std()) / math.sqrt(n)


# --- The KL ---


class TwiceTheKl(GumbelSoftmax):
    """The KL subtracted from the integrand and from its mean."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        twice = estimate.surrogate - td.kl_divergence(q, target.prior)
        return estimate._replace(surrogate=twice, value=twice)


def kl_alone(estimator):
    """Estimates where f is 0 for every z, and the KL's gradient and value."""
    leaf = torch.tensor([[0.4, -1.1], [2.0, 0.3]], dtype=torch.float64, requires_grad=True)
    q, prior = bernoulli(leaf), bernoulli(torch.tensor([0.7, -0.2], dtype=torch.float64))
    found = gradient(estimator, q, leaf, lambda z: 0 * z.sum(-1), 5, prior)
    kl = td.kl_divergence(bernoulli(leaf), prior.expand((2,)))
    return found, (-torch.autograd.grad(kl.sum(), leaf)[0], -kl.detach())


@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
def test_the_kl_is_that_of_the_discrete_posterior_and_weighs_once(tau):
    torch.testing.assert_close(*kl_alone(create("gumbel-softmax", temperature=tau)))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*kl_alone(TwiceTheKl(tau)))


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_sampled_kl_vanishes_with_its_gradient_where_q_is_the_prior(tau):
    leaf = torch.tensor([[0.4, -1.1, 3.0]], dtype=torch.float64, requires_grad=True)
    estimator = create("gumbel-softmax", temperature=tau, kl="sampled")
    h, value = gradient(
        estimator, bernoulli(leaf), leaf, lambda z: 0 * z.sum(-1), 5, bernoulli(leaf[0].detach())
    )
    assert float(h.abs().max()) < 1e-14
    assert float(value.abs().max()) < 1e-14


def test_a_sampled_kl_is_the_kl_in_the_limit_of_a_small_temperature():
    """At 5 standard errors of 2¹⁶ draws, 2 coordinates; at τ = 1 it is another number."""

    def deviation(tau):
        torch.manual_seed(0)
        leaf = torch.tensor([0.4, -1.6], dtype=torch.float64).expand(2**16, 2).clone().requires_grad_()
        prior = bernoulli(torch.tensor([-0.7, 0.5], dtype=torch.float64))
        estimator = create("gumbel-softmax", temperature=tau, kl="sampled")
        h = gradient(estimator, bernoulli(leaf), leaf, lambda z: 0 * z.sum(-1), 1, prior)[0]
        kl = td.kl_divergence(bernoulli(leaf), prior.expand((2**16,)))
        exact = -torch.autograd.grad(kl.sum(), leaf)[0][0]
        return float(((h.mean(0) - exact) / h.std(0) * 2**8).abs().max())

    assert deviation(0.02) < 5
    assert deviation(1.0) > 10


@pytest.mark.parametrize(("kl", "claimed"), [("analytic", True), ("sampled", False)])
def test_what_is_claimed(kl, claimed):
    estimator = create("gumbel-softmax", kl=kl)
    assert (estimator.unbiased, estimator.unbiased_value, estimator.objective) == (
        claimed,
        claimed,
        "relaxed",
    )
