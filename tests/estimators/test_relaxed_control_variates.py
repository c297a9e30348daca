"""rebar and relax: exact moments by quadrature over the uniforms, identities, and wrong variants.

Given b, only ratios of a variable's exponentials matter, which are uniform on the simplex: Gauss-Legendre rules
integrate over them. In the mean the terms of ζ and ζ̃, and of each sample, add up given b, so that all of them
may sit at the same nodes at once.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from discrete_draws import exact_gradient, family, outcomes
from elbograd.estimators import Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.pieces import relaxed_controls
from oracles import complex_step, legendre

T = 0.45
NUMBER_THREE = {"p": 0.3, "exact": 0.021, "deviation": 0.1336}
CASES = [
    (torch.tensor([-0.8], dtype=torch.float64), 1, 40),
    (torch.tensor([0.6], dtype=torch.float64), 4, 40),
    (torch.tensor([0.7, -1.2], dtype=torch.float64), 1, 40),
    (torch.tensor([0.7, -1.2], dtype=torch.float64), 2, 40),
    (torch.tensor([0.7, -1.2], dtype=torch.float64), 3, 40),
    (torch.tensor([[0.4, -0.9, 0.2]], dtype=torch.float64), 1, 120),
    (torch.tensor([[0.4, -0.9, 0.2]], dtype=torch.float64), 2, 120),
]


def coupled(logits):
    """Of z of these logits' shape: smooth, not linear, and couples the variables."""
    weights = torch.linspace(0.5, 1.9, logits.numel(), dtype=torch.float64)

    def f(z):
        z = z.flatten(-logits.dim())
        return 2 * torch.sin((weights * z).sum(-1) + 0.3) + (z * weights.flip(0)).sum(-1).square() - 3

    return f


def bent(logits):
    """`coupled`, and what is 0 on the support alone."""
    return lambda z: coupled(logits)(z) + 1.7 * (z * (1 - z)).flatten(-logits.dim()).sum(-1)


def square(z):
    return (z - T).square().sum(-1)


def simplex(states, nodes):
    """Logarithms of points that are uniform on the simplex, (n, K), and their weights."""
    points, weights = legendre(0.0, 1.0, nodes)
    if states == 2:
        return torch.tensor(np.log(np.stack([points, 1 - points], -1))), torch.tensor(weights)
    s, v = (part.ravel() for part in np.meshgrid(points, points))
    rows = np.stack([1 - s, s * (1 - v), s * v], -1)
    return torch.tensor(np.log(rows)), torch.tensor(2 * s * np.outer(weights, weights).ravel())


class Quadrature:
    """b, ζ and ζ̃ of S samples at the nodes of a rule, one combination an entry of the batch.

    Args:
        logits: of one datum.
        num_samples: S.
        nodes: of each rule.
        together: ζ and ζ̃ at the same nodes, which is enough for a mean.
    """

    def __init__(self, logits, num_samples, nodes, together=True):
        size, states = len(logits), 2 if logits.dim() == 1 else logits.shape[-1]
        rule, weights = simplex(states, nodes)
        columns = size if together else 2 * num_samples * size
        grid = torch.cartesian_prod(*[torch.arange(len(rule))] * columns).reshape(-1, columns)
        weights = weights[grid].prod(-1)
        grid = grid.reshape(len(grid), *((1, 1) if together else (2, num_samples)), size)
        z = outcomes(logits)
        chosen = torch.tensor(list(itertools.product(range(len(z)), repeat=num_samples)))
        noise = rule[grid].expand(-1, 2, num_samples, -1, -1).movedim(0, 2)  # (ζ or ζ̃, S, N, D, K)
        self.logits, self.noise = logits, noise.repeat(1, 1, len(chosen), 1, 1)
        self.z = z[chosen.repeat_interleave(len(grid), 0)].transpose(0, 1)
        self.weights = family(logits)(logits).log_prob(self.z).sum(0).exp() * weights.repeat(len(chosen))

    def estimate(self, estimator, target, monkeypatch):
        """The estimate, (N,), and its gradients (N, *logits)."""
        leaf = self.logits.expand(len(self.weights), *self.logits.shape).clone().requires_grad_()
        q, noise = family(self.logits)(leaf), iter(self.noise)
        q.sample = lambda shape: self.z
        with monkeypatch.context() as patch:
            patch.setattr(relaxed_controls, "log_exponentials", lambda like: next(noise))
            estimate = estimator(q, target, len(self.z))
        return estimate, torch.autograd.grad(estimate.surrogate.sum(), leaf, retain_graph=True)[0]

    def moments(self, estimator, target, monkeypatch):
        """Mean and variance, each of the logits' shape."""
        _, draws = self.estimate(estimator, target, monkeypatch)
        mean = torch.tensordot(self.weights, draws, dims=1)
        return mean, torch.tensordot(self.weights, (draws - mean).square(), dims=1)


def scrambled(spec, logits, f):
    """With a network that is not 0, as after training."""
    estimator = create(spec)
    torch.manual_seed(5)
    estimator.init(family(logits)(logits[None]), Target(f))
    with torch.no_grad():
        for parameter in estimator.parameters():
            if parameter.dim():
                parameter.copy_(0.5 * torch.randn(parameter.shape, dtype=parameter.dtype))
    return estimator.eval()


SPECS = (
    "rebar[temperature=1,eta=0.7]",
    "relax[temperature=1,eta=0.7,hidden=3]",
    "relax[temperature=1,control=network,hidden=3]",
)


# --- The mean ---


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("logits", "num_samples", "nodes"), CASES)
def test_the_mean_is_exact(spec, logits, num_samples, nodes, monkeypatch):
    f = coupled(logits)
    mean, _ = Quadrature(logits, num_samples, nodes).moments(
        scrambled(spec, logits, f), Target(f), monkeypatch
    )
    torch.testing.assert_close(mean, exact_gradient(logits, f), atol=2e-8, rtol=0)


@pytest.mark.parametrize("spec", SPECS)
def test_f_off_the_support_does_not_move_the_mean(spec, monkeypatch):
    logits, num_samples, nodes = CASES[2]
    rule, moments = Quadrature(logits, num_samples, nodes), []
    for f in (coupled(logits), bent(logits)):
        estimator = scrambled(spec, logits, coupled(logits))
        moments.append(rule.moments(estimator, Target(f), monkeypatch))
    torch.testing.assert_close(moments[0][0], moments[1][0], atol=1e-8, rtol=0)
    assert torch.allclose(moments[0][1], moments[1][1]) == ("network" in spec)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_the_mean_with_a_prior(kl, monkeypatch):
    logits = CASES[2][0]
    prior = family(logits)(torch.tensor([0.4, 0.9], dtype=torch.float64))
    estimator = create("rebar", temperature=1, eta=0.7, kl=kl)
    mean, _ = Quadrature(logits, 1, 40).moments(estimator, Target(coupled(logits), prior), monkeypatch)
    exact = exact_gradient(
        logits,
        lambda z: coupled(logits)(z) + prior.log_prob(z) - family(logits)(logits).log_prob(z),
    )
    torch.testing.assert_close(mean, exact, atol=2e-8, rtol=0)


@pytest.mark.parametrize("spec", ["rebar[temperature=0.6]", "relax[temperature=0.6,hidden=3]"])
def test_the_mean_of_coupled_variables_of_four_states(spec):
    """By 2¹⁷ draws: of 8 coordinates the largest deviation passes 5 standard errors once in 2e5 seeds."""
    logits = torch.tensor([[0.4, -0.9, 0.2, 1.3], [1.1, 0.0, -0.6, 0.5]], dtype=torch.float64)
    f = coupled(logits)
    estimator = scrambled(spec, logits, f)
    torch.manual_seed(3)
    leaf = logits.expand(2**17, 2, 4).clone().requires_grad_()
    surrogate = estimator(family(logits)(leaf), Target(f), 1).surrogate
    draws = torch.autograd.grad(surrogate.sum(), leaf)[0]
    exact = exact_gradient(logits, f)
    errors = (draws.mean(0) - exact) / (draws.std(0) / len(draws) ** 0.5)
    assert errors.abs().max() < 5
    assert (exact / (draws.std(0) / len(draws) ** 0.5)).abs().max() > 50


# --- Numbers ---


def test_one_variable_at_temperature_one(monkeypatch):
    """f = (z − .45)², p = .3: the mean .021 and the standard deviation .1336."""
    logits = torch.logit(torch.tensor([NUMBER_THREE["p"]], dtype=torch.float64))
    rule = Quadrature(logits, 1, 60, together=False)
    mean, variance = rule.moments(create("rebar[temperature=1]"), Target(square), monkeypatch)
    assert mean.item() == pytest.approx(NUMBER_THREE["exact"], abs=1e-9)
    assert variance.sqrt().item() == pytest.approx(NUMBER_THREE["deviation"], abs=5e-5)


def by_hand(p, eta, tau, nodes=60):
    """E ĝ and Var ĝ of one variable, analytic in η and τ: sigmoids of logistic noise, v cut at 1 − p."""
    u, weights = legendre(0.0, 1.0, nodes)
    logit = np.log(p / (1 - p))
    first = second = 0.0

    def relaxation(noise):
        soft = 1 / (1 + np.exp(-(logit + np.log(noise / (1 - noise))) / tau))
        return (soft - T) ** 2, 2 * (soft - T) * soft * (1 - soft) / tau

    for b, chance in ((1.0, p), (0.0, 1 - p)):
        noise = 1 - p + p * u if b else (1 - p) * u
        _, along = relaxation(noise)
        c, along_given = relaxation(noise)
        moved = 1 + p * (1 - p) * (u - 1 if b else -u) / (noise * (1 - noise))
        given = ((b - T) ** 2 - eta * c) * (b - p) - eta * along_given * moved
        h = given[:, None] + eta * along
        mass = chance * np.outer(weights, weights)
        first, second = first + (mass * h).sum(), second + (mass * h * h).sum()
    return first, second - first**2


@pytest.mark.parametrize(("p", "eta", "tau"), [(0.3, 1.0, 1.0), (0.8, -0.4, 0.7), (0.5, 0.6, 2.0)])
def test_mean_and_variance_by_logistic_noise(p, eta, tau, monkeypatch):
    logits = torch.logit(torch.tensor([p], dtype=torch.float64))
    estimator = create("rebar", temperature=tau, eta=eta)
    mean, variance = Quadrature(logits, 1, 60, together=False).moments(estimator, Target(square), monkeypatch)
    np.testing.assert_allclose([mean.item(), variance.item()], by_hand(p, eta, tau), atol=1e-8)


@pytest.mark.parametrize(("p", "eta", "tau"), [(0.3, 1.0, 1.0), (0.8, -0.4, 0.7)])
def test_the_gradient_of_the_loss_is_that_of_the_variance(p, eta, tau, monkeypatch):
    """In log τ and η, by complex steps through the quadrature by hand."""
    logits = torch.logit(torch.tensor([p], dtype=torch.float64))
    estimator = create("rebar", temperature=tau, eta=eta).train()
    rule = Quadrature(logits, 1, 60, together=False)
    estimate, _ = rule.estimate(estimator, Target(square), monkeypatch)
    found = torch.autograd.grad(
        (rule.weights * estimate.aux_loss).sum(), (estimator.log_temperature, estimator.eta)
    )
    expected = [
        complex_step(lambda v: by_hand(p, eta, np.exp(v))[1], np.log(tau)),
        complex_step(lambda v: by_hand(p, v, tau)[1], eta),
    ]
    np.testing.assert_allclose([part.item() for part in found], expected, atol=1e-7)


# --- Identities ---


@pytest.mark.parametrize("logits", [CASES[2][0], CASES[5][0]])
def test_eta_zero_is_the_score_function(logits):
    found = []
    for spec in ("rebar[eta=0]", "score-function"):
        leaf = logits.expand(50, *logits.shape).clone().requires_grad_()
        torch.manual_seed(0)
        surrogate = create(spec)(family(logits)(leaf), Target(coupled(logits)), 3).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), leaf)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("logits", [CASES[2][0], CASES[5][0]])
def test_a_high_temperature_is_a_baseline_at_the_middle(logits):
    """η f(½), or f(1/K)."""
    states = 2 if logits.dim() == 1 else logits.shape[-1]
    f, eta, found = coupled(logits), 0.7, []
    middle = f(torch.full_like(logits, 1 / states)).item()
    for spec in (f"rebar[temperature=1e9,eta={eta}]", f"constant-baseline[value={eta * middle}]"):
        leaf = logits.expand(50, *logits.shape).clone().requires_grad_()
        torch.manual_seed(0)
        surrogate = create(spec)(family(logits)(leaf), Target(f), 3).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), leaf)[0])
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


def test_relax_starts_as_rebar_or_as_a_constant_baseline():
    logits = CASES[2][0]
    f, found = coupled(logits), {}
    q = family(logits)(logits[None])
    for spec in ("rebar", "relax", "constant-baseline", "relax[control=network]"):
        estimator = create(spec)
        torch.manual_seed(1)
        estimator.init(q, Target(f))
        leaf = logits.expand(50, *logits.shape).clone().requires_grad_()
        torch.manual_seed(0)
        surrogate = estimator(family(logits)(leaf), Target(f), 1).surrogate
        found[spec] = torch.autograd.grad(surrogate.sum(), leaf)[0]
    torch.testing.assert_close(found["relax"], found["rebar"])
    torch.testing.assert_close(found["relax[control=network]"], found["constant-baseline"], atol=1e-6, rtol=0)


def test_the_network_alone_sees_the_support_alone():
    logits = CASES[2][0]
    found = []
    for f in (coupled(logits), bent(logits)):
        estimator = scrambled("relax[control=network]", logits, coupled(logits))
        leaf = logits.expand(50, *logits.shape).clone().requires_grad_()
        torch.manual_seed(0)
        surrogate = estimator(family(logits)(leaf), Target(f), 2).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), leaf)[0])
    assert torch.equal(*found)


# --- The conditional noise ---


@pytest.mark.parametrize("states", [2, 3])
def test_the_conditional_relaxation_has_the_law_of_the_relaxation(states):
    """E h(ζ̃), b drawn, is E h(ζ) for ζ = φ + G itself; 2¹⁸ draws, 5 standard errors."""
    torch.manual_seed(0)
    logits = torch.tensor([0.4, -1.3, 0.9][:states], dtype=torch.float64).log_softmax(-1)[None]
    plain = logits - relaxed_controls.log_exponentials(torch.zeros(2**18, 1, states, dtype=torch.float64))
    codes = torch.nn.functional.one_hot(plain.argmax(-1), states).double()
    given = relaxed_controls.conditional_gumbels(logits, codes)
    assert not torch.equal(without_cut(logits, codes).argmax(-1), plain.argmax(-1))
    assert torch.equal(given.argmax(-1), plain.argmax(-1))
    for h in (torch.sigmoid, lambda z: (z - z.mean(-1, keepdim=True)).square().clamp_max(9), torch.cos):
        pair = torch.stack([h(given), h(plain)]).flatten(2)
        error = (pair[0] - pair[1]).std(0) / 2**9
        assert ((pair[0].mean(0) - pair[1].mean(0)) / error).abs().max() < 5


# --- Wrong variants ---


def without_moving_noise(logits, codes):
    """∂v′/∂φ dropped: ζ̃ moves with φ as ζ does."""
    return RIGHT(logits.detach(), codes) + (logits - logits.detach())


def without_cut(logits, codes):
    """The noise of the states that b is not left as it was, above the largest too."""
    return torch.where(codes > 0, RIGHT(logits, codes), logits - relaxed_controls.log_exponentials(codes))


RIGHT = relaxed_controls.conditional_gumbels


@pytest.mark.parametrize(
    ("p", "mean"),
    [(0.3, 0.01769), (0.5, 0.0125)],
)
def test_dropping_the_path_through_the_conditional_noise_is_seen(p, mean, monkeypatch):
    """.01769 for .021 at p = .3; half of the gradient at p = ½."""
    logits = torch.logit(torch.tensor([p], dtype=torch.float64))
    monkeypatch.setattr(relaxed_controls, "conditional_gumbels", without_moving_noise)
    found, _ = Quadrature(logits, 1, 60, together=False).moments(
        create("rebar[temperature=1]"), Target(square), monkeypatch
    )
    assert found.item() == pytest.approx(mean, abs=1e-5)


# --- Bad input ---


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rebar[temperature=0]", "temperature=0 is not positive"),
        ("rebar[temperature=-1]", "temperature=-1 is not positive"),
        ("relax[temperature=inf]", "temperature=inf is not a number"),
        ("rebar[temperature=true]", "temperature=True is not a number"),
        ("rebar[eta=nan]", "eta=nan is not a number"),
        ("relax[control=f]", "control='f' is not one of both, network"),
        ("relax[control=network,eta=1]", "not with control=network"),
        ("relax[hidden=0]", "hidden=0 is not a positive integer"),
    ],
)
def test_bad_arguments_in_one_line(spec, says):
    with pytest.raises(UsageError) as caught:
        create(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_integer_is_a_number_like_any_other():
    assert torch.equal(
        create("rebar[temperature=2]").log_temperature, create("rebar[temperature=2.0]").log_temperature
    )


def test_relax_says_that_it_was_not_initialized():
    logits = CASES[0][0]
    with pytest.raises(UsageError, match="call init"):
        create("relax")(family(logits)(logits[None]), Target(square), 1)
