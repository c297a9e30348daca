"""The problems: real data, reproducible weights, closed forms, and the same model throughout."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from elbograd.benchmarks.oracles.references import reference_gradient
from elbograd.benchmarks.problems import Problem, load_problem, problem_catalogue
from elbograd.benchmarks.problems.data import digits
from elbograd.benchmarks.problems.datasets.images import Images
from elbograd.estimators import UsageError, create


def batch(problem, size, seed=0):
    return next(problem.batches("train", size, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", problem_catalogue())
def test_shapes_and_protocol(name):
    problem = load_problem(name)
    assert isinstance(problem, Problem)
    x = batch(problem, 6)
    eta = problem.encoder(x)
    assert eta.shape[0] == 6
    target = problem.target(x)
    for leading in ((6,), (3, 6)):
        q = problem.posterior(eta.expand(*leading, -1))
        assert q.batch_shape == leading
        assert q.event_shape[0] == getattr(problem, "upper_dim", 0) + problem.latent_dim
        assert target.log_likelihood(q.sample((5,))).shape == (5, *leading)
    with pytest.raises(UsageError, match="split 'validation' is not one of train, test"):
        next(problem.batches("validation", 6, None))


@pytest.mark.parametrize("name", problem_catalogue())
def test_each_datum_alone(name):
    problem = load_problem(name)
    x = batch(problem, 4)
    q = problem.posterior(problem.encoder(x))
    z = q.sample((2,))
    together = problem.target(x).log_likelihood(z)
    alone = [problem.target(x[i : i + 1]).log_likelihood(z[:, i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_the_digits_are_the_digits():
    data = digits()
    assert data["train"].shape == (1500, 64)
    assert data["test"].shape == (297, 64)
    together = torch.cat((data["train"], data["test"]))
    from sklearn.datasets import load_digits

    original = torch.from_numpy(load_digits().data / 16).float()
    assert float(together.sum()) == pytest.approx(float(original.sum()), rel=1e-5)
    assert sorted(map(tuple, together[:, 20:24].tolist())) == sorted(map(tuple, original[:, 20:24].tolist()))


def test_binarization():
    for binarization, changes in (("dynamic", True), ("fixed", False)):
        data = Images("digits", binarization)
        first, second = (
            torch.cat(list(data.batches("train", 500, torch.Generator().manual_seed(s)))).sum(0)
            for s in (1, 2)
        )
        assert torch.equal(first, second) is not changes
        a, b = (torch.cat(list(data.batches("test", 100, None))) for _ in range(2))
        assert torch.equal(a, b)
        assert set(a.unique().tolist()) == {0.0, 1.0}
    # Each pixel is 1 with its intensity as probability: 1,500 draws, 5 standard errors.
    mean = torch.cat(list(Images().batches("train", 500, torch.Generator().manual_seed(3)))).mean(0)
    p = digits()["train"].mean(0)
    assert ((mean - p).abs() <= 5 * (p * (1 - p) / 1500).sqrt() + 1e-9).all()
    with pytest.raises(UsageError, match="binarization='soft' is not one of dynamic, fixed"):
        load_problem("vae[binarization=soft]")


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = load_problem("vae[seed=5]")
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second, third = load_problem("vae[seed=5]"), load_problem("vae[seed=6]")
    torch.manual_seed(1)
    load_problem("vae[seed=5]")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.encoder[0].weight, second.encoder[0].weight)
    assert not torch.equal(first.encoder[0].weight, third.encoder[0].weight)


def test_linear_gaussian_elbo_by_hand():
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3,noise=0.7]")
    x = batch(problem, 3).double()
    problem.encoder.double()
    problem.decoder.double()
    q = problem.posterior(problem.encoder(x))
    value = create("exact")(q, problem.target(x), 1).value
    w, b = problem.decoder.weight.detach().numpy(), problem.decoder.bias.detach().numpy()
    for i in range(3):
        mu, sigma = q.mean[i].detach().numpy(), q.stddev[i].detach().numpy()
        points, weights = oracles.hermite(2, 4)
        z = mu + sigma * points
        f = -0.5 * (((x[i].numpy() - z @ w.T - b) / 0.7) ** 2).sum(-1) - 3 * math.log(
            0.7 * math.sqrt(2 * math.pi)
        )
        kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * np.log(sigma)).sum()
        assert value[i].item() == pytest.approx(weights @ f - kl, rel=1e-10)


def test_bernoulli_gradient_by_enumeration():
    problem = load_problem("bernoulli-vae[latent_dim=3,hidden=8]")
    x = batch(problem, 2)
    reference = reference_gradient(problem, x)
    assert reference.kind == "enumeration"
    outcomes = oracles.enumerate_bernoulli(3)
    logits = problem.encoder(x).detach().double().numpy()
    f = (
        problem.target(x)
        .log_likelihood(torch.tensor(outcomes).float()[:, None].expand(-1, 2, -1))
        .detach()
        .numpy()
    )
    for i in range(2):
        p = 1 / (1 + np.exp(-logits[i]))
        weight = np.prod(np.where(outcomes == 1, p, 1 - p), axis=1)
        # ∂p/∂logit = p(1 − p); KL against fair coins has gradient p(1 − p)·logit.
        gradient = (weight * f[:, i]) @ (outcomes - p) - p * (1 - p) * logits[i]
        np.testing.assert_allclose(reference.eta_mean[i].numpy(), gradient, rtol=1e-4, atol=1e-4)


def test_one_dimensional_costs_by_hand():
    # E cos(kz) = exp(−k²σ²/2) cos(kμ); E exp(−kz²) = (1 + 2kσ²)^{-1/2} exp(−kμ²/(1 + 2kσ²)).
    mu, sigma, k = 0.4, 0.8, 1.7
    values = {
        "quadratic": (mu - k) ** 2 + sigma**2,
        "cosine": math.exp(-(k**2) * sigma**2 / 2) * math.cos(k * mu),
        "exponential": (1 + 2 * k * sigma**2) ** -0.5 * math.exp(-k * mu**2 / (1 + 2 * k * sigma**2)),
    }
    for name, value in values.items():
        problem = load_problem(f"{name}[loc={mu},scale={sigma},k={k}]")
        problem.encoder.double()
        x = torch.zeros(1, 1)
        estimate = create("exact")(problem.posterior(problem.encoder(x)), problem.target(x), 1)
        assert estimate.value.item() == pytest.approx(-value, rel=1e-7)


def test_quadrature_that_has_not_converged_is_no_reference():
    smooth = load_problem("cosine[k=3]")
    assert reference_gradient(smooth, torch.zeros(1, 1)).kind == "quadrature"
    rough = reference_gradient(load_problem("cosine[k=60,scale=2]"), torch.zeros(1, 1))
    assert rough is None or rough.kind.startswith("long run")
