"""Posteriors over weights: minibatches add up to the data set, and variances are those of algebra.

Totals are held against exact ones within 4.5 standard errors, coordinates of means within 5: false alarms are below
1e-5 each, and seeds are fixed.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial

import oracles
import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.certification.corners import CORNERS
from elbograd.benchmarks.certification.levels import Settings
from elbograd.benchmarks.certification.problem import certify_problem
from elbograd.benchmarks.gradients import make_ready
from elbograd.benchmarks.oracles import weight_variances
from elbograd.benchmarks.oracles.weight_variances import Regression
from elbograd.benchmarks.problems import WeightsProblem, load_problem
from elbograd.benchmarks.problems.bayesian_linear_regression import BayesianLinearRegression
from elbograd.benchmarks.problems.placement import place
from elbograd.estimators import Linear, UsageError, catalogue, create
from elbograd.estimators.posteriors.shared import SharedDraws, shares_draws
from pages import Page

LINEAR = "bayesian-linear-regression[data=50]"


def off_centre(problem):
    """The problem in float64 with φ away from symmetric places."""
    problem = place(problem, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in problem.encoder.named_parameters():
            steps = torch.linspace(-0.5, 0.7, parameter.numel(), dtype=torch.float64)
            parameter.add_((steps if "loc" in name else 0.8 * steps.flip(0)).view_as(parameter))
    return problem


def regression(problem, x):
    weights = problem.encoder["weights"]
    return Regression(
        x[:, :-1], x[:, -1], weights.loc.detach(), weights.log_scale.detach().exp(), problem.noise, len(problem.data["train"])
    )  # fmt: skip


def gradient(problem, x, estimator="exact"):
    """Of one estimate under a fixed seed, and its value."""
    torch.manual_seed(3)
    estimate = create(estimator)(problem.posterior(problem.encoder(x)), problem.target(x), 2)
    parts = torch.autograd.grad(estimate.surrogate.mean(), list(problem.encoder.parameters()))
    return torch.cat([part.flatten() for part in parts]), estimate.value.mean().detach()


class KlOfTheBatch(BayesianLinearRegression):
    """Wrong: the KL is scaled by N/B as the likelihood is."""

    def target(self, x):
        return replace(super().target(x), kl_weight=self.data_size / len(x))


class Unscaled(BayesianLinearRegression):
    """Wrong: log p(x_i|w) of the batch alone stands for that of all data."""

    data_size = 1


def adds_up(problem, estimator):
    problem = off_centre(problem)
    data = problem.data["train"].double()
    whole, value = gradient(problem, data, estimator)
    shares = [(len(x) / len(data), *gradient(problem, x, estimator)) for x in data.split(16)]
    assert shares[-1][0] < shares[0][0], "the last batch should be a smaller one"
    scale = float(whole.norm())
    return (
        float((sum(share * g for share, g, _ in shares) - whole).norm()) < 1e-12 * scale
        and abs(float(sum(share * v for share, _, v in shares) - value)) < 1e-10 * abs(float(value))
        and float((data[:, 0] @ data[:, 1]).abs()) > 0
    )


@pytest.mark.parametrize(
    "estimator", ["exact", "reparameterization", "score-function", "sticking-the-landing"]
)
def test_the_batches_of_an_epoch_add_up_to_the_data_set(estimator):
    # One seed draws the same w for every batch.
    assert adds_up(load_problem(LINEAR), estimator)
    assert not adds_up(KlOfTheBatch(data=50), estimator)


def elbo_by_hand(problem):
    """Of all data, by sums over data and weights."""
    at = regression(problem, problem.data["train"].double())
    value = 0.0
    for u, y in zip(at.u, at.y, strict=True):
        second_moment = (y - u @ at.loc) ** 2 + (u**2) @ at.scale**2
        value += float(-second_moment / (2 * at.noise**2)) - math.log(at.noise * math.sqrt(2 * math.pi))
    for mu, sigma in zip(at.loc.tolist(), at.scale.tolist(), strict=True):
        ratio = sigma / problem.prior_scale
        value -= 0.5 * (ratio**2 + (mu / problem.prior_scale) ** 2 - 1) - math.log(ratio)
    return value


@pytest.mark.parametrize(
    ("kind", "right"), [(BayesianLinearRegression, True), (KlOfTheBatch, True), (Unscaled, False)]
)
def test_the_elbo_is_that_of_all_data(kind, right):
    problem = off_centre(kind(data=50, noise=0.7, prior_scale=1.6))
    _, value = gradient(problem, problem.data["train"].double())
    assert (abs(float(value) - elbo_by_hand(problem)) < 1e-9) is right  # with B = N the wrong KL is right


def test_where_q_is_the_posterior_the_elbo_is_the_evidence():
    problem = place(
        load_problem("bayesian-linear-regression[features=1,data=9,noise=0.7]"), dtype=torch.float64
    )
    x = problem.data["train"].double()
    precision = 1 + len(x) / 0.7**2
    with torch.no_grad():
        problem.encoder["weights"].loc.fill_(float(x[:, -1].sum()) / 0.7**2 / precision)
        problem.encoder["weights"].log_scale.fill_(-0.5 * math.log(precision))
    slope, value = gradient(problem, x)
    covariance = 0.7**2 * torch.eye(9).double() + x[:, :1] @ x[:, :1].T
    evidence = torch.distributions.MultivariateNormal(torch.zeros(9).double(), covariance).log_prob(x[:, -1])
    assert float(value) == pytest.approx(float(evidence), rel=1e-12)
    assert float(slope.abs().max()) < 1e-10


def score_function_variance(at):
    """One sample, by Gauss-Hermite quadrature, which is exact for polynomials of degree 8."""
    points, weights = (torch.from_numpy(part) for part in oracles.hermite(len(at.loc), 8))
    w = at.loc + at.scale * points
    density = -0.5 * ((at.y - w @ at.u.T) / at.noise) ** 2 - math.log(at.noise * math.sqrt(2 * math.pi))
    f = at.size * density.mean(-1, keepdim=True)
    term = f * torch.cat((points / at.scale, points**2 - 1), 1)
    return weights @ term**2 - (weights @ term) ** 2


EXACT = {
    "reparameterization": weight_variances.shared_draws,
    "score-function": score_function_variance,
    "local-reparameterization": weight_variances.local_reparameterization,
    "flipout": weight_variances.flipout,
}


def whole_gradients(problem, estimator, x, replicates, num_samples, seed=0):
    """ĝ in (μ, log σ), (R, 2D), of independent estimates: a replicate is one more batch dimension."""
    torch.manual_seed(seed)
    leaf = problem.encoder(x)[0].detach().repeat(replicates, 1).requires_grad_()
    q = problem.posterior(leaf.unsqueeze(1).expand(-1, len(x), -1))
    estimator = create(estimator) if isinstance(estimator, str) else estimator
    estimate = estimator(q, problem.target(x), num_samples)
    return torch.autograd.grad(estimate.surrogate.mean(-1).sum(), leaf)[0]


def batch_of(problem, size):
    return next(problem.batches("train", size, torch.Generator().manual_seed(0))).double()


def deviation(h, exact):
    """How many standard errors the total variance of h (R, P) is from the sum of the exact one."""
    squares = (h - h.mean(0)).square().sum(-1)
    return abs(float(squares.mean()) * len(h) / (len(h) - 1) - float(exact.sum())) / float(
        squares.std() / len(h) ** 0.5
    )


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize(("batch", "num_samples"), [(1, 1), (16, 1), (50, 3)])
def test_variances_are_the_exact_ones(estimator, batch, num_samples):
    problem = off_centre(load_problem(LINEAR))
    x = batch_of(problem, batch)
    exact = EXACT[estimator](regression(problem, x)) / num_samples
    h = whole_gradients(problem, estimator, x, 40_000, num_samples)
    assert deviation(h, exact) < 4.5
    mean, _ = gradient(problem, x)
    assert float(((h.mean(0) - mean) / (h.std(0) / len(h) ** 0.5)).abs().max()) < 5


def measured(problem, batch, **settings):
    x = batch_of(problem, batch)
    v = measure_variance(problem, "reparameterization", x, **{"replicates": 600} | settings)
    exact = weight_variances.shared_draws(regression(problem, x))
    return abs(v.total - float(exact.sum())) / v.moments[""].stderr, v.route


@pytest.mark.parametrize("batch", [1, 16])
def test_what_is_measured_is_that_too(batch):
    distance, route = measured(off_centre(load_problem(LINEAR)), batch)
    assert route == "full"
    assert distance < 4.5


class Independent(BayesianLinearRegression):
    """Wrong: the draws are shared, and said not to be."""

    def posterior(self, eta):
        q = super().posterior(eta)
        q.shares_draws = False
        return q


def test_shared_draws_that_claim_to_be_independent_show():
    distance, route = measured(off_centre(Independent(data=50)), 16, replicates=20_000)
    assert route == "factorized"
    assert distance > 10


def test_estimators_are_right_under_shared_draws_or_refused():
    problem = off_centre(load_problem("bayesian-linear-regression[data=20,noise=2.0]"))
    x = problem.data["train"].double()[:6]
    exact, _ = gradient(problem, x)
    used = []
    for name in catalogue():
        estimator = create(name)
        eta = problem.encoder(x).detach()
        try:
            make_ready(problem, estimator, x, eta, 4)
        except UsageError as refusal:
            assert len(str(refusal).splitlines()) == 1  # noqa: PT017
            continue
        used.append(name)
        h = whole_gradients(problem, estimator, x, 10_000, 4)
        stderr = h.std(0) / len(h) ** 0.5 + 1e-9 * exact.norm()
        assert float(((h.mean(0) - exact) / stderr).abs().max()) < 5, name
    assert {"reparameterization", "leave-one-out", "learned-baseline", "sticking-the-landing"} <= set(used)
    assert {"local-reparameterization", "flipout"} <= set(used)
    assert not {"iwae", "vimco", "optimal-baseline"} & set(used)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_minibatches_of_the_logistic_regression_have_its_elbo(kl):
    minibatch = off_centre(load_problem("bayesian-logistic-regression"))
    whole = off_centre(load_problem("logistic-regression"))
    for (_, one), (_, other) in zip(
        minibatch.encoder.named_parameters(), whole.encoder.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other)
    x = minibatch.data["train"].double()
    for estimator in ("exact", f"reparameterization[kl={kl}]", f"leave-one-out[kl={kl}]"):
        here, value = gradient(minibatch, x, estimator)
        there, same = gradient(whole, torch.zeros(1, 1).double(), estimator)
        torch.testing.assert_close(here, there)
        assert float(value) == pytest.approx(float(same), rel=1e-12)


def test_one_datum_is_certified(monkeypatch):
    def two_points(problem, x, seed):
        eta = problem.encoder(x).detach()
        assert len(eta) == 1
        return {"initial": eta, "moved": eta + torch.linspace(-0.6, 0.8, eta.numel()).to(eta)}

    monkeypatch.setattr("elbograd.benchmarks.certification.problem.points_of", two_points)
    monkeypatch.setattr("elbograd.benchmarks.certification.problem.CORNERS", CORNERS[:6])
    problem = load_problem("bayesian-linear-regression[features=2,data=5]")
    build = partial(create, "reparameterization")
    certificate = certify_problem(build, problem, "regression", Settings(max_evaluations=1e4))
    assert {check.name for check in certificate.checks} == {"gradient", "value", "variance", "shape"}
    assert certificate.failures == []
    assert all(check.holds for check in certificate.checks if check.name != "variance")  # may be too skewed


def test_draws_are_shared_and_not_copied():
    problem = load_problem("bayesian-linear-regression")
    x = next(problem.batches("train", 256 if problem.data_size >= 256 else 128))
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    assert isinstance(q, SharedDraws) and shares_draws(q)
    z = q.rsample(torch.Size((3,)))
    assert z.shape == (3, 128, 3) and z.stride(1) == 0
    copied = z.detach().clone()
    torch.testing.assert_close(target.log_likelihood(z.detach()), target.log_likelihood(copied))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(copied))
    q = problem.posterior(problem.encoder(x).expand(2, -1, -1))
    assert q.sample((5,)).shape == (5, 2, 128, 3) and q.batch_shape == (2, 128)


def test_the_mlp_is_an_mlp():
    problem = load_problem("bayesian-mlp[hidden=7,layers=2]")
    x = next(problem.batches("train", 5))
    w = problem.posterior(problem.encoder(x)).sample((2,))
    found = problem.target(x).log_likelihood(w)
    for s in range(2):
        hidden, start = x[:, :64], 0
        for inputs, outputs in ((64, 7), (7, 7), (7, 10)):
            matrix = w[s, 0, start : start + inputs * outputs].reshape(inputs, outputs)
            offset = w[s, 0, start + inputs * outputs : start + (inputs + 1) * outputs]
            start += (inputs + 1) * outputs
            hidden = (hidden if inputs == 64 else hidden.relu()) @ matrix + offset
        by_hand = -1500 * torch.nn.functional.cross_entropy(hidden, x[:, 64].long(), reduction="none")
        torch.testing.assert_close(found[s], by_hand)
    assert start == problem.latent_dim


def kl_by_hand(mean, log_scale, prior_scale):
    ratio = log_scale.exp() / prior_scale
    return (0.5 * (ratio**2 + (mean / prior_scale) ** 2 - 1) - ratio.log()).sum(-1)


def test_the_bayesian_vae_weighs_its_terms_as_all_data_do():
    """The value is N (log p(x|z, w) − KL of z) − KL of w, each datum by itself, at the samples drawn."""
    problem = off_centre(load_problem("bayesian-vae[latent_dim=2,hidden=5,prior_scale=0.7]"))
    x = next(problem.batches("train", 4)).double()
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    eta = {name: problem.encoder(x)[:, part] for name, part in problem.eta_parts.items()}
    torch.manual_seed(5)
    joined = q.rsample(torch.Size((3,)))
    w, z = joined[:, 0, :-2], joined[..., -2:]
    assert bool((joined[:, 1:, :-2] == joined[:, :1, :-2]).all()), "one draw of w for all data"
    first, offset, second = w[:, :10].reshape(3, 2, 5), w[:, None, 10:15], w[:, 15:335].reshape(3, 5, 64)
    logits = torch.tanh(z @ first + offset) @ second + w[:, None, 335:]
    density = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1).mean(0)
    torch.manual_seed(5)
    value = create("reparameterization")(q, target, 3).value
    of_z = kl_by_hand(eta["mean"], eta["log_scale"], 1.0)
    of_w = kl_by_hand(eta["weights_mean"], eta["weights_log_scale"], 0.7)
    torch.testing.assert_close(value, 1500 * (density - of_z) - of_w)


def by_hand_of_both(problem, x, seed):
    """(1/B) Σ_i of the estimate at one draw of all weights, written out: S = 1, analytic KL given u."""
    image, pixels = problem.encoder.image_weights, problem.encoder.weights
    torch.manual_seed(seed)
    joined = problem.posterior(problem.encoder(x)).rsample(torch.Size((1,)))[0].detach()

    def drawn(side, rows):
        # w along its path: μ + σ ε with the ε that was drawn.
        loc = torch.cat([layer.loc for layer in side.values()])
        scale = torch.cat([layer.log_scale for layer in side.values()]).exp()
        w = loc + scale * ((rows - loc) / scale).detach()
        return w, kl_by_hand(loc, scale.log(), problem.prior_scale)

    (u, of_u), (w, of_w) = drawn(image, joined[0, : problem.image_dim]), drawn(pixels, joined[0, -401:-2])
    split = [64 * 5, 5, 5 * 4, 4]
    first, b, second, c = u.split(split)
    mean, log_scale = (torch.tanh(x @ first.view(64, 5) + b) @ second.view(5, 4) + c).chunk(2, -1)
    z = mean + log_scale.exp() * ((joined[:, -2:] - mean) / log_scale.exp()).detach()
    first, b, second, c = w.split([2 * 5, 5, 5 * 64, 64])
    logits = torch.tanh(z @ first.view(2, 5) + b) @ second.view(5, 64) + c
    density = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    return (1500 * (density - kl_by_hand(mean, log_scale, 1.0)) - of_u - of_w).mean()


def test_both_networks_weights_may_be_latent():
    """The gradient in all of φ is that of the objective written out at the same draws, to rounding."""
    problem = off_centre(load_problem("bayesian-vae[latent_dim=2,hidden=5,prior_scale=0.7,weights=both]"))
    x = next(problem.batches("train", 4)).double()
    phi = list(problem.encoder.parameters())
    assert {layer.mean.dtype for layer in problem.posterior(problem.encoder(x)).examples.values()} == {
        x.dtype
    }
    right = torch.autograd.grad(by_hand_of_both(problem, x, 5), phi)
    torch.manual_seed(5)
    estimate = create("reparameterization")(problem.posterior(problem.encoder(x)), problem.target(x), 1)
    found = torch.autograd.grad(estimate.surrogate.mean(), phi)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    assert min(float(b.norm()) for b in right) > 1


@pytest.mark.parametrize("name", ["reparameterization", "leave-one-out", "sticking-the-landing"])
def test_both_are_measured_and_trained(name):
    spec = "bayesian-vae[latent_dim=2,hidden=3,weights=both]"
    v = measure_variance(spec, name, num_samples=2, batch_size=16, replicates=16)
    assert v.route == "full" and 0 < v.total < math.inf
    assert train(spec, name, num_samples=2, steps=3, batch_size=16, seed=0).rows()


@pytest.mark.parametrize("name", ["local-reparameterization", "flipout"])
def test_layers_alone_are_not_drawn_where_latents_depend_on_the_others(name):
    with pytest.raises(UsageError, match=r"depend on none of the others, and z depends on u$"):
        measure_variance("bayesian-vae[latent_dim=2,hidden=3,weights=both]", name, replicates=2)


@pytest.mark.parametrize("name", ["local-reparameterization", "flipout", "moving-average-baseline"])
@pytest.mark.parametrize("spec", ["bayesian-vae[latent_dim=2,hidden=5]", "bayesian-mlp[hidden=5]"])
def test_networks_are_measured_and_trained(name, spec):
    v = measure_variance(spec, name, batch_size=16, replicates=16, warmup=5)
    assert v.route == "full" and v.evaluations == 1 and 0 < v.total < math.inf
    assert any("output" in layer for layer in v.by_layer)
    assert train(spec, name, steps=3, batch_size=16, seed=0).rows()


def test_training_climbs():
    result = train("bayesian-logistic-regression", "reparameterization", steps=60, batch_size=32, seed=0)
    values = [row["value"] for row in result.rows() if row["metric"] == "train_objective"]
    assert values[-1] > values[0] + 20


def test_the_example_of_the_page_runs():
    scope = {}
    exec(Page("docs/bring-your-own-model.md").code("WeightsProblem"), scope)
    problem = scope["problem"]
    x = next(problem.batches("train", 5, None))
    assert problem.latent_dim == 241 and problem.data_size == 400
    for name in ("reparameterization", "local-reparameterization", "flipout"):
        slope, _ = gradient(problem, x, name)
        assert bool(slope.isfinite().all()) and slope.numel() == 482


# --- What is wrong is told in a line ---


class Counts(WeightsProblem):
    """Poisson regression, with what a test puts in its place."""

    def __init__(self, layers=None, data=None, name="w", columns=2):
        rows = torch.tensor([[0.1, 0.5, 1.0], [0.3, -0.2, 0.0], [-0.4, 0.1, 2.0]])
        self.name, self.columns = name, columns
        super().__init__(
            {"w": Linear(2, 1)} if layers is None else layers,
            {"train": rows} if data is None else data,
            1,
            0.1,
        )

    def log_likelihood(self, x, apply):
        log_rate = apply(self.name, x[:, : self.columns]).squeeze(-1)
        return torch.distributions.Poisson(log_rate.exp()).log_prob(x[:, 2])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Counts(layers={}), "layers={} are none by name"),
        (lambda: Counts(layers=[Linear(2, 1)]), "are none by name: give {'first': Linear(inputs, outputs)}"),
        (
            lambda: Counts(layers={"w": torch.nn.Linear(2, 1)}),
            "layer 'w' is a torch.nn.modules.linear.Linear",
        ),
        (lambda: Counts(data=torch.ones(3, 3)), "give {'train': x, 'test': x}"),
        (lambda: Counts(data={"train": [1.0]}), "data['train'] is a list, not a tensor"),
        (lambda: Counts(name="v"), "applies 'v', which is none of its layers w"),
        (lambda: Counts(columns=3), "layer 'w' takes 2 inputs, and is applied to a tensor of shape (3, 3)"),
        (
            lambda: WeightsProblem({"w": Linear(2, 1)}, {"train": torch.ones(3, 3)}, 1, 0.1),
            "WeightsProblem has no log_likelihood(self, x, apply)",
        ),
    ],
)
def test_a_wrong_network_is_told_in_a_line(build, words):
    with pytest.raises(UsageError, match=re.escape(words)) as told:
        measure_variance(build(), "reparameterization", replicates=20)
    assert "\n" not in str(told.value)
