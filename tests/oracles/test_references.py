"""References for the bias: exact for every family, against sums and quadratures written out in NumPy.

They use SciPy's densities and scores derived by hand: ∇_η E_q[f] = E_q[(f + log p − log q) ∇_η log q].
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from elbograd.benchmarks import load_results, measure_variance
from elbograd.benchmarks.oracles.bias import bias_rows, measure_bias
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.oracles.references import exact_reference, reference_gradient, whole_reference
from elbograd.benchmarks.problems import from_vae, load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import Target, create
from elbograd.estimators.methods.leave_one_out import LeaveOneOut
from elbograd.estimators.methods.reparameterization import Reparameterization
from oracles import legendre
from scipy import special, stats
from torch import distributions as td
from torch import nn

X = torch.zeros(1, 1)


class Eta(nn.Module):
    """The same η for every datum."""

    def __init__(self, eta):
        super().__init__()
        self.eta = nn.Parameter(torch.tensor([eta]))

    def forward(self, x):
        return self.eta.expand(len(x), -1)


class Model:
    """A posterior at one η, and log p(x|z) = cos(Σ_j z_j) + 0.2 Σ_j sin(2 z_j)."""

    latent_dim = None

    def __init__(self, eta, posterior, prior=None):
        self.encoder, self.decoder, self.posterior, self.prior = Eta(eta), nn.Module(), posterior, prior

    def target(self, x):
        prior = None if self.prior is None else self.prior(self.encoder.eta.dtype)
        return Target(lambda z: torch.cos(z.sum(-1)) + 0.2 * torch.sin(2 * z).sum(-1), prior)

    def batches(self, split, batch_size, generator):
        yield X.expand(batch_size, 1)


def log_likelihood(z):
    return np.cos(z.sum(-1)) + 0.2 * np.sin(2 * z).sum(-1)


def of_pairs(family):
    """η = (a_1, …, a_D, b_1, …, b_D) -> independent family(a_j, b_j)."""
    return lambda eta: td.Independent(family(*eta.chunk(2, -1), validate_args=False), 1)


def flow(eta):
    """z = exp(μ + σ ε)."""
    loc, scale = eta.chunk(2, -1)
    base = td.Independent(td.Normal(loc, scale, validate_args=False), 1)
    return td.TransformedDistribution(base, [td.ExpTransform()], validate_args=False)


def _log_normal_scores(z, a, b):
    e = (np.log(z) - a) / b
    return e / b, (e**2 - 1) / b


# posterior; SciPy's density of (a, b); ∂ log q / ∂(a, b); where to integrate; (a, b) of q and of the prior.
FAMILIES = {
    "Gaussian": (
        of_pairs(td.Normal),
        lambda a, b: stats.norm(a, b),
        lambda z, a, b: ((z - a) / b**2, ((z - a) ** 2 / b**2 - 1) / b),
        (-12.0, 12.0),
        [(0.4, 0.7), (-0.3, 1.2)],
        (0.2, 1.5),
    ),
    "Gamma": (
        of_pairs(td.Gamma),
        lambda a, b: stats.gamma(a, scale=1 / b),
        lambda z, a, b: (np.log(b) - special.digamma(a) + np.log(z), a / b - z),
        (0.0, 40.0),
        [(4.3, 1.7), (6.1, 2.2)],
        (3.0, 1.1),
    ),
    "Beta": (
        of_pairs(td.Beta),
        lambda a, b: stats.beta(a, b),
        lambda z, a, b: (
            np.log(z) - special.digamma(a) + special.digamma(a + b),
            np.log1p(-z) - special.digamma(b) + special.digamma(a + b),
        ),
        (0.0, 1.0),
        [(4.2, 5.1), (6.3, 4.5)],
        (3.0, 2.5),
    ),
    "von Mises": (
        of_pairs(td.VonMises),
        lambda a, b: stats.vonmises(b, loc=a),
        lambda z, a, b: (b * np.sin(z - a), np.cos(z - a) - special.i1(b) / special.i0(b)),
        (-np.pi, np.pi),
        [(0.5, 1.9), (-0.8, 0.7)],
        (0.1, 0.4),
    ),
    "flow": (
        flow,
        lambda a, b: stats.lognorm(b, scale=np.exp(a)),
        _log_normal_scores,
        (1e-4, 12.0),
        [(0.1, 0.3), (-0.2, 0.25)],
        (0.0, 0.5),
    ),
}


def model_of(name, dimension):
    posterior, _, _, _, pairs, prior = FAMILIES[name]
    eta = [pair[k] for k in (0, 1) for pair in pairs[:dimension]]
    expanded = [value for value in prior for _ in range(dimension)]
    return Model(eta, posterior, lambda dtype: posterior(torch.tensor(expanded, dtype=dtype)))


def gradient_by_quadrature(name, dimension, nodes=500):
    """∇_η of the ELBO by tensor Gauss-Legendre, (P,)."""
    _, density, scores, ends, pairs, prior = FAMILIES[name]
    pairs = [tuple(float(np.float32(value)) for value in pair) for pair in pairs[:dimension]]
    one, weight = legendre(*ends, nodes)
    z = np.array(list(itertools.product(one, repeat=dimension)))
    weights = np.array(list(itertools.product(weight, repeat=dimension))).prod(-1)
    log_q = sum(density(*pair).logpdf(z[:, j]) for j, pair in enumerate(pairs))
    log_p = sum(density(*prior).logpdf(z[:, j]) for j in range(dimension))
    score = np.array([s for j, pair in enumerate(pairs) for s in scores(z[:, j], *pair)])
    order = [2 * j + k for k in (0, 1) for j in range(dimension)]
    q = weights * np.exp(log_q)
    assert q.sum() == pytest.approx(1, abs=1e-9)
    finite = q > 1e-300
    return (score[order] * q * (log_likelihood(z) + log_p - log_q))[:, finite].sum(1)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_is_exact_for_every_family(name, dimension):
    reference = reference_gradient(model_of(name, dimension), X)
    assert reference.kind == "quadrature"
    expected = torch.from_numpy(gradient_by_quadrature(name, dimension))
    # torch's Bessel functions in the density of von Mises are polynomials, good to 2e-7.
    rtol = 1e-6 if name == "von Mises" else 1e-7
    torch.testing.assert_close(reference.eta_mean[0], expected, rtol=rtol, atol=1e-9)


def test_binomial_variables_with_a_count_each_are_enumerated():
    counts = torch.tensor([3.0, 5.0])
    model = Model(
        [0.1, -0.4],
        lambda eta: td.Independent(td.Binomial(counts.to(eta), logits=eta, validate_args=False), 1),
    )
    p = 1 / (1 + np.exp(-np.float32([0.1, -0.4]).astype(float)))
    expected = 0.0
    for z in itertools.product(range(4), range(6)):
        mass = np.prod([stats.binom(n, q).pmf(k) for n, q, k in zip((3, 5), p, z, strict=True)])
        expected = expected + mass * log_likelihood(np.array(z, dtype=float)) * (z - np.array([3, 5]) * p)
    reference = reference_gradient(model, X)
    assert reference.kind == "enumeration"
    torch.testing.assert_close(reference.eta_mean[0], torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    v = measure_variance(model, "leave-one-out", X, num_samples=2, replicates=20_000)
    assert measure_bias(model, X, v, reference).p_value > 1e-4


class Shrunk(LeaveOneOut):
    """A gradient 30% too small."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(surrogate=0.7 * estimate.surrogate)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_rows_bias_is_against_the_exact_gradient(name):
    # p < 1e-4 for a right estimator of one family: 5e-4 for all. The wrong one's bias is 0.3, within 5
    # standard errors of at most 0.02.
    model = model_of(name, 1)
    reference = reference_gradient(model, X)
    for estimator, bias in ((LeaveOneOut(kl="sampled"), 0.0), (Shrunk(kl="sampled"), 0.3)):
        v = measure_variance(model, estimator, X, num_samples=8, replicates=40_000)
        values = {row["metric"]: row for row in bias_rows(model, X, v, reference)}
        assert json.loads(values["bias"]["parameters"]) == {"reference": "quadrature"}
        assert values["bias"]["value"] == pytest.approx(bias, abs=0.1)
        assert values["bias_bound"]["value"] >= bias
        p_value = measure_bias(model, X, v, reference).p_value
        assert p_value < 1e-9 if bias else p_value > 1e-4


WRONG = Path(__file__).parents[1] / "helpers" / "wrong_estimators.py"


@pytest.mark.parametrize(
    ("problem", "right", "wrong", "num_samples", "method"),
    [
        ("gamma-poisson", "reparameterization", "NegativeKl", 1, "quadrature"),
        ("small-vae[posterior=flow]", "reparameterization[kl=sampled]", "NegativeKl", 1, "quadrature"),
        ("linear-gaussian[latent_dim=1,data_dim=2]", "iwae", "DirectTermForgotten", 2, "quadrature"),
        ("small-vae[posterior=bernoulli]", "vimco", "DirectTermForgotten", 2, "enumeration"),
    ],
)
def test_a_wrong_estimator_of_the_suites_problems_shows(problem, right, wrong, num_samples, method):
    # p < 1e-4 for a right estimator of one problem: 4e-4 for all.
    problem = load_problem(problem)
    x = first_batch(problem, 4, 0)
    p_values = []
    for spec in (right, f"{WRONG}:{wrong}"):
        estimator = create(spec)
        reference = reference_gradient(problem, x, 0, estimator.objective, num_samples)
        assert reference.kind == method
        v = measure_variance(problem, estimator, x, num_samples=num_samples, replicates=20_000)
        p_values.append(measure_bias(problem, x, v, reference).p_value)
    assert p_values[0] > 1e-4
    assert p_values[1] < 1e-9


def test_a_run_writes_the_exact_bias_of_another_objective(elbograd):
    status, _, error = elbograd(
        "variance", "-p", "linear-gaussian[latent_dim=1,data_dim=2]", "-e", "iwae",
        "-e", f"{WRONG}:DirectTermForgotten", "-s", 2, "-r", 20_000, "--batch-size", 4, "-o", "run",
    )  # fmt: skip
    assert status == 1, error  # one of them is wrong
    rows = load_results("run")
    bias = rows[rows["metric"] == "bias"].set_index("estimator")
    assert {json.loads(parameters)["reference"] for parameters in bias["parameters"]} == {"quadrature"}
    (wrong,) = set(bias.index) - {"iwae"}
    bound = rows[rows["metric"] == "bias_bound"].set_index("estimator")["value"]
    assert bound["iwae"] < bias["value"][wrong]


# --- A reference costs no measurement ---


def gaussian(eta):
    loc, log_scale = eta.chunk(2, -1)
    return td.Independent(td.Normal(loc, log_scale.exp()), 1)


def only_in_float32(eta):
    if eta.dtype == torch.float64:
        raise ValueError("float32 alone\nas I said")
    return gaussian(eta)


def test_what_cannot_be_solved_falls_back_to_a_long_run():
    model = Model([0.3, -0.2], only_in_float32)
    assert exact_reference(model, X) == "ValueError: float32 alone"
    reference = reference_gradient(model, X)
    assert reference.kind == "long run of reparameterization (32768 estimates)"
    exact = reference_gradient(Model([0.3, -0.2], gaussian), X)
    assert exact.kind == "quadrature"
    error = reference.eta_covariance[0].diagonal().sqrt()  # 5 of them: 1e-6
    assert bool(((reference.eta_mean - exact.eta_mean)[0].abs() < 5 * error).all())


def fails(x):
    raise RuntimeError("not today")


def test_a_row_says_why_no_bias_is_known():
    model = Model([0.3, -0.2], gaussian)
    v = measure_variance(model, "reparameterization", X, replicates=100)
    model.posterior, model.target = only_in_float32, fails
    reason = reference_gradient(model, X)
    assert reason == "ValueError: float32 alone; RuntimeError: not today"
    (row,) = bias_rows(model, X, v, reason)
    assert (row["metric"], row["value"], row["reason"]) == ("bias", None, f"no bias known: {reason}")


@pytest.mark.parametrize(
    ("side", "module", "objective", "found"),
    [
        ("encoder", nn.BatchNorm1d(8), "elbo", "quadrature"),
        ("encoder", nn.Dropout(0.3), "elbo", "long run of reparameterization (128 whole gradients)"),
        ("decoder", nn.Dropout(0.3), "elbo", "long run of reparameterization (128 whole gradients)"),
        ("decoder", nn.Dropout(0.3), "iwae", "noise of modules in train mode leaves no exact answer"),
        ("decoder", nn.BatchNorm1d(8), "elbo", "BatchNorm of the decoder in train mode makes the objective"),
    ],
)
def test_what_modules_in_train_mode_are_held_against(side, module, objective, found):
    """The right estimator's p-value has a fixed seed and is below 1e-3 by chance once in a thousand."""
    torch.manual_seed(0)
    middle = {"encoder": nn.Tanh(), "decoder": nn.Tanh(), side: module}
    encoder = nn.Sequential(nn.Linear(5, 8), middle["encoder"], nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), middle["decoder"], nn.Linear(8, 5))
    problem = from_vae(encoder, decoder, torch.rand(20, 5).round())
    x = first_batch(problem, 6, 0)
    reference = whole_reference(problem, x, objective=objective, length=64)
    if isinstance(reference, str):
        assert reference.startswith(found)
        return
    assert reference.kind == found
    right, wrong = (
        measure_bias(
            problem, x, measure_variance(problem, name, x, replicates=2000, route="full"), reference
        ).p_value
        for name in (Reparameterization(), HalfAsMuch())
    )
    assert right > 1e-3
    assert wrong < 1e-3


class HalfAsMuch(Reparameterization):
    """A wrong estimator: half the gradient."""

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(surrogate=0.5 * estimate.surrogate)


def test_a_bias_that_cannot_be_computed_is_a_reason():
    model = Model([0.3, -0.2], gaussian)
    v = measure_variance(model, "reparameterization", X, replicates=100)
    reference = reference_gradient(model, X)
    model.encoder.forward = fails
    (row,) = bias_rows(model, X, v, reference)
    assert row["reason"] == "no bias known: RuntimeError: not today"


def test_other_objectives_have_exact_references_or_none():
    problem = load_problem("vae[latent_dim=4,hidden=8]")
    x = first_batch(problem, 4, 0)
    reason = reference_gradient(problem, x, 0, "iwae", 2)
    assert reason == "latent dimension 4 of 2 samples is too large for quadrature (at most 3)"
    v = measure_variance(problem, "iwae", x, num_samples=2, replicates=100)
    assert bias_rows(problem, x, v, reason) == []


def test_a_quadrature_has_a_gate():
    # What is not periodic converges slowly under the trapezoidal rule: 0.1% would be taken for the exact.
    model = model_of("von Mises", 1)
    model.target = lambda x: Target(lambda z: z.sum(-1))
    assert exact_reference(model, X).startswith("the quadrature has not converged (relative change 0.00")


def test_a_datum_that_cannot_stand_alone_is_not_solved():
    loc = torch.tensor([[0.0], [1.0]])
    model = Model([0.3], lambda eta: td.Independent(td.Normal(eta + loc.to(eta), 1.0), 1))
    assert exact_reference(model, X.expand(2, 1)) == "the posterior of one datum alone has batch shape (2,)"


def test_the_climb_ends_where_two_rules_agree_and_at_the_finest_answer():
    # 64 and 96 nodes agree on the smooth one, and not on the rough one, which 160 and 200 settle.
    for frequency in (1.0, 14.0):
        model = model_of("Gaussian", 2)
        model.target = lambda x, k=frequency: Target(lambda z: torch.cos(k * z).sum(-1))
        eta = model.encoder(X).double().detach()
        climbed, finest = (
            exact_gradients(model.posterior, eta, model.target, X, [], climb=climb).eta_grad
            for climb in (True, False)
        )
        torch.testing.assert_close(climbed, finest, rtol=1e-6, atol=1e-9)
