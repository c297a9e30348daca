"""The measured variance against closed forms, quadrature and plain loops.

Each comparison asks that the 99.99% interval holds the truth: a false alarm of about 1e-4 a comparison
(fixed seeds), and some 40 comparisons.
"""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.gradients import frozen, prepare
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.benchmarks.variance.factorized import FactorizedRoute
from elbograd.estimators import Estimate, Estimator, EstimatorError, Target, UsageError, create
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from variances import ORACLE_H, BatchMeanBaseline, OneNumber, holds, linear_gaussian, oracle_parts


@pytest.mark.parametrize(("d", "s"), [(0.7, 1.3), (-1.5, 0.3), (0.2, 2.0)])
@pytest.mark.parametrize(
    "name", ["score-function", "constant-baseline", "optimal-baseline", "reparameterization"]
)
def test_quadratic_cost_in_one_dimension(name, d, s):
    parameters = {"constant-baseline": {"value": -(d**2 + s**2)}, "optimal-baseline": {"pilot": 2000}}
    replicates = 20_000 if name == "optimal-baseline" else 200_000
    v = measure_variance(
        f"quadratic[loc={d},scale={s}]", create(name, **parameters.get(name, {})), replicates=replicates
    )
    of_mu, of_sigma = oracles.QUADRATIC[name](d, s)
    # The pilot of 2000 adds about 0.1% to the optimal baseline's variance: far inside the interval.
    assert holds(v.moments["loc"], of_mu)
    assert holds(v.moments["scale"], of_sigma)
    assert holds(v.moments[""], of_mu + of_sigma)
    torch.testing.assert_close(float(v.per_parameter["loc"]), v.moments["loc"].mean, rtol=1e-6, atol=0)
    assert v.per_parameter["loc"].shape == ()


@pytest.mark.parametrize("samples", [1, 4])
def test_variance_falls_with_samples_and_data(samples):
    v = measure_variance(
        "quadratic[loc=1,scale=1]", "score-function", num_samples=samples, replicates=200_000, batch_size=3
    )
    assert holds(v.moments[""], sum(oracles.QUADRATIC["score-function"](1, 1)) / samples / 3)


@pytest.mark.parametrize("name", ORACLE_H)
def test_linear_gaussian_vae_in_parameter_space(name):
    problem, x = linear_gaussian()
    samples = 2 if name == "leave-one-out" else 1
    v = measure_variance(problem, name, x, num_samples=samples, replicates=60_000)
    total, eta_gradient = 0.0, []
    for mu, sigma, f, gradient, a, g, squared in oracle_parts(problem, x):
        h, dimension = ORACLE_H[name](f, gradient, mu, sigma)
        mean, covariance = oracles.expectation(h, dimension, nodes=6)  # a polynomial of degree 8 at most
        # A linear encoder has J_i J_iᵀ = (‖x_i‖² + 1) I.
        total += np.trace(covariance) * squared / len(x) ** 2
        eta_gradient.append(mean - oracles.kl_gradient_eta(mu, sigma))
        if name == "reparameterization":
            by_algebra = oracles.quadratic_reparameterization_covariance(a, g, sigma)
            np.testing.assert_allclose(covariance, by_algebra, rtol=1e-9, atol=1e-9)
    assert holds(v.moments[""], total)
    # The mean, coordinate by coordinate: |difference| within 5 standard errors (false alarm 6e-7 each).
    exact = np.array(eta_gradient).T @ x.double().numpy() / len(x)
    error = np.sqrt(v.per_parameter["weight"].numpy() / v.replicates)
    assert (np.abs(v.mean["weight"].numpy() - exact) < 5 * error + 1e-6).all()


def test_full_route_and_a_plain_loop_agree_with_the_factorized_route():
    problem = load_problem("vae[latent_dim=3,hidden=16]")
    x = first_batch(problem, 5, seed=1)
    fast = measure_variance(problem, "score-function", x, num_samples=2, replicates=20_000)
    full = measure_variance(problem, "score-function", x, num_samples=2, replicates=1000, route="full")
    assert (fast.route, full.route) == ("factorized", "full")

    gradients = []
    torch.manual_seed(7)
    for _ in range(1000):  # plain PyTorch: f times the score, and the KL written out
        mu, log_sigma = problem.encoder(x).chunk(2, -1)
        z = (mu + log_sigma.exp() * torch.randn(2, *mu.shape)).detach()
        logits = problem.decoder(z)
        f = -nn.functional.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        log_q = (-0.5 * ((z - mu) / log_sigma.exp()) ** 2 - log_sigma).sum(-1)
        kl = 0.5 * (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(-1)
        surrogate = ((f.detach() * log_q).mean(0) - kl).mean()
        grads = torch.autograd.grad(surrogate, list(problem.encoder.parameters()))
        gradients.append(torch.cat([g.flatten() for g in grads]))
    loop = torch.stack(gradients).double()
    variance = float(loop.var(0).sum())
    contributions = (loop - loop.mean(0)).square().sum(1)
    error = float(contributions.std()) / 1000**0.5
    truth = fast.total  # 20 times the replicates: its own error is small beside the others'
    assert abs(variance - truth) < 4.5 * error
    assert holds(full.moments[""], truth)
    for name in fast.per_parameter:
        assert holds(full.moments[name], fast.moments[name].mean)
        assert fast.per_parameter[name].shape == dict(problem.encoder.named_parameters())[name].shape
    mean_error = (fast.total / 20_000 + full.total / 1000) ** 0.5
    gap = sum(float((fast.mean[n] - full.mean[n]).square().sum()) for n in fast.mean) ** 0.5
    assert gap < 2 * mean_error


class VarianceScaled(Estimator):
    """The planted slip z = mu + sigma² eps."""

    def forward(self, q, target, num_samples):
        loc, scale = q.base_dist.loc, q.base_dist.scale
        z = loc + scale**2 * torch.randn(num_samples, *loc.shape)
        value = target.log_likelihood(z).mean(0)
        return Estimate(value, value)


def test_the_comparison_fails_for_a_wrong_estimator():
    d, s = 0.7, 1.3
    v = measure_variance(f"quadratic[loc={d},scale={s}]", VarianceScaled(), replicates=200_000)
    of_mu, of_sigma = oracles.QUADRATIC["reparameterization"](d, s)
    assert not holds(v.moments["loc"], of_mu)
    assert not holds(v.moments["scale"], of_sigma)


def test_an_estimator_that_couples_the_batch_takes_the_full_route():
    v = measure_variance("linear-gaussian", BatchMeanBaseline(), replicates=50, batch_size=4)
    assert v.route == "full"


def test_theta_is_measured_from_value():
    problem, x = linear_gaussian()
    v = measure_variance(problem, "score-function", x, wrt="theta", replicates=1000)
    assert set(v.mean) == {"weight", "bias"}
    # The bias' gradient is (x − W z − b)/noise²: its variance is W diag(σ²) Wᵀ/noise⁴ averaged over data.
    weight = problem.decoder.weight.detach().double().numpy()
    truth = (
        sum(np.trace(weight @ np.diag(sigma**2) @ weight.T) for _, sigma, *_ in oracle_parts(problem, x))
        / problem.noise**4
        / len(x) ** 2
    )
    assert holds(v.moments["bias"], truth)


def test_nothing_of_the_users_is_changed():
    problem = load_problem("vae[latent_dim=2,hidden=8]")
    estimator = create("moving-average-baseline")
    before = [p.clone() for p in (*problem.encoder.parameters(), *problem.decoder.parameters())]
    state = torch.get_rng_state()
    measure_variance(problem, estimator, replicates=64)
    after = [*problem.encoder.parameters(), *problem.decoder.parameters()]
    assert all(
        torch.equal(a, b) and b.requires_grad and b.grad is None for a, b in zip(before, after, strict=True)
    )
    assert float(estimator.weight) == 0
    assert torch.equal(state, torch.get_rng_state())


def test_same_seed_same_numbers_and_chunks_do_not_change_the_data_only_the_draws():
    def measure(**settings):
        return measure_variance("linear-gaussian", "reparameterization", replicates=2000, **settings)

    first, again, other, elsewhere = (
        measure(seed=4),
        measure(seed=4),
        measure(seed=4, chunk=7),
        measure(seed=5),
    )
    assert first.total == again.total
    assert other.replicates == 2000
    bound = 5 * (first.ci_high - first.ci_low) / 3.92 * math.sqrt(2)  # 5 standard errors: 6e-7
    assert abs(other.total - first.total) < bound < abs(elsewhere.total - first.total)


def test_precision_is_reached():
    v = measure_variance("linear-gaussian", "reparameterization", precision=0.02)
    assert (v.ci_high - v.ci_low) / 2 <= 0.021 * v.total
    assert not v.warning


def test_too_few_replicates_are_said_to_be_too_few():
    v = measure_variance("quadratic[loc=3]", "score-function", replicates=100)
    assert v.warning.startswith("not enough replicates (at least ")
    assert v.rows()[0]["reason"] == v.warning


def test_a_trained_baseline_is_kept_and_a_cold_one_warmed():
    problem = load_problem("quadratic[loc=3]")
    cold = measure_variance(problem, "moving-average-baseline", replicates=20_000, warmup=0)
    warm = measure_variance(problem, "moving-average-baseline", replicates=20_000)
    plain = measure_variance(problem, "score-function", replicates=20_000)
    assert cold.total == pytest.approx(plain.total)
    assert warm.total < 0.8 * plain.total
    estimator = create("moving-average-baseline")
    estimator.average.fill_(-10.0)
    estimator.weight.fill_(1.0)
    given = measure_variance(problem, estimator, replicates=20_000, warmup=0)
    assert given.total == pytest.approx(
        measure_variance(problem, "constant-baseline[value=-10]", replicates=20_000).total
    )


def test_what_is_not_an_estimator_and_what_cannot_be_trained():
    with pytest.raises(UsageError, match="is not an Estimator: give an instance"):
        measure_variance("linear-gaussian", VarianceScaled)
    problem = load_problem("linear-gaussian")
    problem.encoder.requires_grad_(False)
    with pytest.raises(UsageError, match="no trainable parameters in its encoder"):
        measure_variance(problem, "score-function")


def test_gradients_are_on_whatever_the_caller_does():
    with torch.no_grad():
        assert measure_variance("linear-gaussian", "score-function", replicates=10).total > 0


def test_exact_has_no_variance():
    v = measure_variance("bernoulli-vae[latent_dim=4]", "exact", batch_size=3)
    assert v.total < 1e-12
    assert v.replicates == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicates": 0}, "replicates must be an integer of at least 2, not 0"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
        ({"precision": 2.0}, "precision must be between 0 and 1, not 2.0"),
        ({"route": "fast"}, "route='fast' is not one of factorized, full"),
        ({"wrt": "psi"}, "wrt='psi' is not one of phi, theta"),
        ({"device": "tpu"}, "unknown device 'tpu': choose from cpu"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"precision": "high"}, "precision must be between 0 and 1, not 'high'"),
        ({"x": torch.zeros(0, 10)}, "x must be a tensor (B, ...) of at least one datum"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"warmup": -1}, "warmup must be an integer of at least 0, not -1"),
        ({"num_samples": True}, "num_samples must be an integer of at least 1, not True"),
        ({"batch_size": "a"}, "batch_size must be an integer of at least 1, not 'a'"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, not 2.5"),
        ({"seed": 1.5}, "seed must be an integer from 0 to 2**63 - 1, not 1.5"),
        ({"seed": 2**64}, f"seed must be an integer from 0 to 2**63 - 1, not {2**64}"),
        ({"dtype": torch.int32}, "unknown dtype torch.int32: choose from float32"),
        ({"dtype": 3}, "unknown dtype 3: choose from float32"),
        (
            {"x": torch.ones(4, 7)},
            "the encoder fails for x of shape (4, 7) and dtype float32 (RuntimeError: mat1",
        ),
        ({"x": torch.ones(4, 10).bool()}, "dtype bool (RuntimeError: mat1 and mat2 must have the same dtype"),
        ({"x": torch.ones(4, 10).bool()}, "bool is passed as it is, x.float() may be meant"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UsageError) as error:
        measure_variance("linear-gaussian", "score-function", **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Slips:
    """A model with one slip that people make."""

    latent_dim = 2

    def __init__(self, slip):
        self.encoder, self.decoder, self.slip = nn.Linear(3, 4), nn.Linear(2, 3), slip

    def posterior(self, eta):
        q = torch.distributions.Normal(eta[..., :2], eta[..., 2:].exp())
        return q if self.slip == "posterior" else torch.distributions.Independent(q, 1)

    def target(self, x):
        prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
        prior = prior if self.slip == "prior" else torch.distributions.Independent(prior, 1)
        squares = lambda z: -((x - self.decoder(z)) ** 2)  # noqa: E731
        return Target(squares if self.slip == "likelihood" else lambda z: squares(z).sum(-1), prior)

    def batches(self, split, batch_size, generator):
        yield torch.ones(batch_size, 3)


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("posterior", "the posterior has batch shape (64, 2) for 64 data, expected (64,): Independent"),
        ("prior", "the prior has event shape (), the posterior (2,): Independent"),
        (
            "likelihood",
            "log_likelihood has shape (1, 64, 3) for one sample of 64 data, expected (S, *batch) = (1, 64)",
        ),
    ],
)
def test_a_slip_in_a_users_model_is_one_line(slip, message):
    measure_variance(Slips(None), "reparameterization", replicates=10)
    with pytest.raises(UsageError) as error:
        measure_variance(Slips(slip), "reparameterization", replicates=10)
    assert message in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["score-function", "reparameterization", "leave-one-out"])
def test_nothing_waits_for_the_gpu_between_chunks(name):
    problem = place(load_problem("vae"), device="cuda")
    x = first_batch(problem, 64, seed=0)
    estimator = create(name)
    prepare(problem, estimator, x, 2, None)
    with frozen(problem.decoder):
        route = FactorizedRoute(problem, estimator, x, 2, chunk=32)
        route.add(1000)
        torch.cuda.set_sync_debug_mode("error")
        try:
            route.add(1000)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert route.total().mean > 0


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_the_chunk_size_changes_nothing_but_the_order_of_the_draws(chunk):
    truth = sum(oracles.QUADRATIC["score-function"](0.7, 1.3))
    v = measure_variance("quadratic[loc=0.7,scale=1.3]", "score-function", replicates=4000, chunk=chunk)
    assert v.replicates == 4000
    assert holds(v.moments[""], truth)


def test_memory_does_not_grow_with_the_replicates():
    # No tensor is larger for more replicates, and none is kept from chunk to chunk but sums and a sample.
    peaks = []
    for replicates in (20_000, 80_000):
        with LargestAllocation() as largest:
            measure_variance("vae[latent_dim=2,hidden=8]", "score-function", replicates=replicates)
        peaks.append(largest.bytes)
    assert peaks[0] == peaks[1]


class LargestAllocation(TorchDispatchMode):
    """The largest tensor that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("route", ["factorized", "full"])
@pytest.mark.parametrize("details", [True, False])
@pytest.mark.parametrize("scale", [1e17, 1e21, 1e30])
def test_moments_that_overflow_are_told_in_one_line(scale, details, route):
    problem = OneNumber(lambda z: scale * z**2)
    settings = {"replicates": 50, "batch_size": 1, "details": details, "route": route}
    if route == "factorized":
        with pytest.raises(EstimatorError, match=r"overflow float32; measure in float64") as error:
            measure_variance(problem, "score-function", **settings)
        assert "\n" not in str(error.value)
    else:  # kept in float64
        assert measure_variance(problem, "score-function", **settings).ci_high > 1.1 * scale**2
    v = measure_variance(problem, "score-function", dtype="float64", **settings)
    plain = measure_variance(OneNumber(lambda z: z**2), "score-function", dtype="float64", **settings)
    for found in ("total", "ci_low", "ci_high"):
        assert getattr(v, found) == pytest.approx(scale**2 * getattr(plain, found), rel=1e-6)


def test_rare_draws_that_overflow_are_not_a_certain_result():
    problem = OneNumber(lambda z: torch.exp(2 * z**2))
    with pytest.raises(EstimatorError, match="overflow float32"):
        measure_variance(problem, "score-function", replicates=1_000_000, batch_size=1, details=False)
    huge = OneNumber(lambda z: 1e100 * z**2)
    with pytest.raises(EstimatorError, match="overflow float64"):
        measure_variance(huge, "score-function", replicates=50, batch_size=1, dtype="float64")


def test_a_deterministic_estimator_of_a_model_that_draws_is_drawn_in_full():
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3,noise=0.8]")
    settings = {"batch_size": 4, "route": "full", "replicates": 400}
    assert measure_variance(problem, "exact", **settings).replicates == 2
    problem.encoder = nn.Sequential(nn.Dropout(0.01), problem.encoder)  # two replicates are often alike
    for seed in range(5):
        assert measure_variance(problem, "exact", seed=seed, **settings).replicates == 400
    problem.encoder[0].p = 0.5
    v = measure_variance(problem, "exact", **settings)
    assert v.replicates == 400
    assert not v.deterministic
    assert 0 < v.ci_low < v.total < v.ci_high
    few = measure_variance(problem, "exact", **(settings | {"replicates": 10}))
    assert few.warning.startswith("not enough replicates")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_for_the_full_route(dtype):
    with pytest.raises(UsageError, match=f"^{dtype} is too coarse .* use float32, float64, or route='full'$"):
        measure_variance("quadratic", "reparameterization", replicates=50, dtype=dtype)
    v = measure_variance("quadratic", "reparameterization", replicates=500, dtype=dtype, route="full")
    assert 0 < v.ci_low < v.total < v.ci_high
