"""Antithetic and scrambled Sobol' draws: what they leave of the variance, by algebra and by strata.

f = (z − k)², q = N(μ, σ²), d = μ − k, z = μ + σε. A mirrored pair's mean keeps the part of a term that is even in ε:

    pathwise  ∂μ  2d                      variance 0
              ∂σ  2σε²                    8σ²
    score     ∂μ  2dε²                    8d²
              ∂σ  (d² + σ²ε²)(ε² − 1)/σ   2d⁴/σ² + 20d² + 74σ²

Quadrature is held against these; draws are held against quadrature on f = cos 1.2z, whose terms have light tails.
In one dimension S = 2^m scrambled points lie one in each of S equal strata of (0, 1), independent given full
scrambling, so that the variance of the mean is Σ (variance within a stratum) / S².

Statistical tests fix their seed and raise a false alarm with probability 1e-6 each (Hall's H, Bonferroni over
the columns compared).
"""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.posteriors import draws, sobol
from elbograd.estimators.posteriors.sobol import sobol_uniforms
from elbograd.estimators.testing.mean_test import studentize
from oracles import legendre
from scipy.stats import kstest, norm
from torch import distributions as td

RATE = 1e-6
REPLICATES = 250_000
MU, SIGMA, K = 0.7, 1.3, 1.5
D = MU - K
COSTS = {  # f(z) and f'(z)
    "quadratic": (lambda z: (z - K) ** 2, lambda z: 2 * (z - K)),
    "cosine": (lambda z: np.cos(1.2 * z), lambda z: -1.2 * np.sin(1.2 * z)),
}
PAIRS = {
    "reparameterization": (0.0, 8 * SIGMA**2),
    "score-function": (8 * D**2, 2 * D**4 / SIGMA**2 + 20 * D**2 + 74 * SIGMA**2),
}
CPU = torch.device("cpu")


def gaussian(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def gradients(specification, num_samples, replicates=REPLICATES):
    """Estimates (R, 2) of ∇(μ, σ) E f."""
    torch.manual_seed(11)
    loc, scale = (
        torch.full((replicates, 1), v, dtype=torch.float64, requires_grad=True) for v in (MU, SIGMA)
    )
    estimator = create(specification)
    target = Target(lambda z: torch.cos(1.2 * z).sum(-1))
    assert estimator.supports(gaussian(loc, scale), target, num_samples) is None
    estimate = estimator(gaussian(loc, scale), target, num_samples)
    return torch.cat(torch.autograd.grad(estimate.surrogate.sum(), (loc, scale)), -1)


def agrees(found, mean, variance):
    """Whether mean and second central moment of found (R, 2) are these, at RATE."""
    mean, variance = (torch.as_tensor(part, dtype=torch.float64) for part in (mean, variance))
    columns = torch.cat((found - mean, (found - mean).square() - variance), 1)
    transformed, g = studentize(columns, floor=1e-9)
    assert g.abs().max() < 0.1, "too skewed for a verdict"
    return float(transformed.abs().max()) < NormalDist().inv_cdf(1 - RATE / 8)


def strata_nodes(strata):
    """Points ε and weights for each of the equal strata of Φ(ε), Gauss-Legendre in ε between ±9."""
    edges = np.clip(norm.ppf(np.arange(strata + 1) / strata), -9, 9)
    found = []
    for low, high in itertools.pairwise(edges):
        e, w = legendre(low, high, 200)
        found.append((e, w * norm.pdf(e) * strata))
    return found


def terms(name, cost="cosine"):
    """The terms in μ and in σ of one sample, functions of ε."""
    f, slope = COSTS[cost]
    if name == "reparameterization":
        return lambda e: slope(MU + SIGMA * e), lambda e: slope(MU + SIGMA * e) * e
    return lambda e: f(MU + SIGMA * e) * e / SIGMA, lambda e: f(MU + SIGMA * e) * (e**2 - 1) / SIGMA


def stratified_variance(term, strata):
    """Of the mean of one point in each stratum."""
    nodes = strata_nodes(strata)
    return sum((w * term(e) ** 2).sum() - (w * term(e)).sum() ** 2 for e, w in nodes) / strata**2


def pair_variance(term):
    return stratified_variance(lambda e: (term(e) + term(-e)) / 2, 1)


def exact(name="reparameterization"):
    ((e, w),) = strata_nodes(1)
    return [(w * term(e)).sum() for term in terms(name)]


@pytest.mark.parametrize("name", PAIRS)
def test_quadrature_gives_the_closed_forms_of_the_quadratic(name):
    found = [pair_variance(term) for term in terms(name, "quadratic")]
    np.testing.assert_allclose(found, PAIRS[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("num_samples", [2, 8])
def test_mirrored_pairs_leave_the_even_part(name, num_samples):
    variance = [pair_variance(term) / (num_samples // 2) for term in terms(name)]
    assert agrees(gradients(f"{name}[draws=antithetic]", num_samples), exact(), variance)


@pytest.mark.parametrize("name", PAIRS)
def test_the_odd_one_out_is_a_sample_of_its_own(name):
    variance = [(4 * pair_variance(term) + stratified_variance(term, 1)) / 9 for term in terms(name)]
    assert agrees(gradients(f"{name}[draws=antithetic]", 3), exact(), variance)


@pytest.mark.parametrize("name", PAIRS)
def test_independent_halves_are_no_pairs(name, monkeypatch):
    """Unbiased, and wrong in the variance alone."""
    monkeypatch.setattr(draws, "normal", lambda like, s, kind, batch: torch.randn(s, *like.shape).double())
    found = gradients(f"{name}[draws=antithetic]", 2)
    assert not agrees(found, exact(), [pair_variance(term) for term in terms(name)])
    assert agrees(found, exact(), [stratified_variance(term, 1) / 2 for term in terms(name)])


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("num_samples", [1, 4, 16])
def test_sobol_points_stratify_one_dimension(name, num_samples):
    found = gradients(f"{name}[draws=sobol]", num_samples)
    assert agrees(found, exact(), [stratified_variance(term, num_samples) for term in terms(name)])
    if num_samples > 1:
        independent = [stratified_variance(term, 1) / num_samples for term in terms(name)]
        assert not agrees(found, exact(), independent)


def test_points_without_scrambling_are_biased(monkeypatch):
    monkeypatch.setattr(
        sobol.torch, "randint", lambda low, high, shape, **options: torch.zeros(shape, **options)
    )
    bias = gradients("reparameterization[draws=sobol]", 3).mean(0) - torch.tensor(exact())
    assert bias.abs().max() > 0.02


def test_every_elementary_interval_of_a_net_holds_one_point():
    torch.manual_seed(3)
    u = sobol_uniforms(64, (7, 3), 2, CPU)
    for a in range(7):
        cell = (u[..., 0] * 2**a).long() * 2 ** (6 - a) + (u[..., 1] * 2 ** (6 - a)).long()
        assert (cell.sort(0).values == torch.arange(64).reshape(64, 1, 1)).all()
    free = torch.rand(64, 7, 3)
    assert ((free * 64).long().sort(0).values != torch.arange(64).reshape(64, 1, 1)).any()


@pytest.mark.parametrize("point", [0, 1, 5])
def test_each_point_by_itself_is_uniform(point):
    torch.manual_seed(4)
    u = sobol_uniforms(6, (20_000,), 3, CPU)[point]
    for column in u.T:
        assert kstest(column.numpy(), "uniform").pvalue > RATE


def test_entries_of_the_batch_and_dimensions_are_scrambled_independently():
    """64 cells of pairs from one and the same point: χ² with 63 degrees of freedom, 1e-6 at 139."""
    torch.manual_seed(5)
    u = (8 * sobol_uniforms(4, (20_000, 2), 2, CPU)[1]).long()
    for one, two in ((u[:, 0, 0], u[:, 1, 0]), (u[:, 0, 0], u[:, 0, 1]), (u[:, 0, 1], u[:, 1, 0])):
        counts = torch.bincount(8 * one + two, minlength=64).double()
        assert ((counts - 312.5).square() / 312.5).sum() < 139


@pytest.mark.parametrize("kind", ["antithetic", "sobol"])
@pytest.mark.parametrize(
    "q",
    [
        gaussian(torch.zeros(4, 3), torch.ones(4, 3)),
        td.MultivariateNormal(torch.ones(4, 2), scale_tril=torch.tensor([[2.0, 0], [-1, 0.5]]).expand(4, 2, 2)),
        td.Independent(td.Laplace(torch.ones(4, 2), 0.3), 1),
        td.Independent(td.LogNormal(torch.zeros(4, 2), 0.2), 1),
        td.TransformedDistribution(td.Independent(td.Normal(torch.zeros(4, 2), 1.0), 1), [td.StickBreakingTransform()]),
        td.Independent(td.Bernoulli(logits=torch.tensor([0.3, -2.0]).expand(4, 2)), 1),
        td.Independent(td.OneHotCategorical(logits=torch.tensor([0.3, -2.0, 1.0]).expand(4, 2, 3)), 1),
        td.Categorical(logits=torch.tensor([0.3, -2.0, 1.0]).expand(4, 3)),
    ],
    ids=lambda q: type(getattr(q, "base_dist", q)).__name__,
)  # fmt: skip
def test_draws_of_every_family_have_its_moments(q, kind):
    """Means of samples and of their squares, against those of torch's own draws (z-test, 1e-6 each)."""
    torch.manual_seed(6)
    n = 5000  # replicates: another leading batch dimension
    q_many = q.expand((n, *q.batch_shape))
    assert draws.unsupported_draws(q, kind) is None
    z = draws.draw(q_many, 4, kind)
    assert z.shape == (4, n, *q.batch_shape, *q.event_shape)
    assert z.dtype == q.sample().dtype
    assert q.support.check(z).all()
    ours, theirs = z.double().flatten(2), q.sample((40_000,)).double().flatten(1)
    for power in (1, 2):
        a, b = (ours**power).mean((0, 1)), (theirs**power).mean(0)
        # A single sample's spread bounds the error of ours, whose four samples go together somehow.
        error = (theirs**power).std(0) * (1 / n + 1 / 40_000) ** 0.5
        assert ((a - b).abs() <= 5.7 * error + 1e-9).all()


@pytest.mark.parametrize("draw", [draws.rsample, lambda q, s, kind: q.rsample((s,))])
@pytest.mark.parametrize("kind", ["antithetic", "sobol"])
def test_float32_neither_leaves_the_support_nor_reaches_infinity(draw, kind):
    torch.manual_seed(7)
    z = draw(gaussian(torch.zeros(1000, 50), torch.ones(1000, 50)), 64, kind)
    assert z.isfinite().all()
    assert z.dtype == torch.float32


@pytest.mark.parametrize("kind", ["antithetic", "sobol"])
@pytest.mark.parametrize(
    "q", [td.Independent(td.Gamma(torch.ones(3, 2), 1.0), 1), td.Independent(td.Poisson(torch.ones(3, 2)), 1)]
)
def test_families_without_a_quantile_function_are_refused(q, kind):
    reason = create(f"score-function[draws={kind},kl=sampled]").supports(q, Target(lambda z: z.sum(-1)), 2)
    assert reason == f"draws={kind} needs a quantile function, which is not known for a {draws.describe(q)}"


def test_too_many_dimensions_are_refused():
    q = gaussian(torch.zeros(1, 21_202), torch.ones(1, 21_202))
    reason = create("reparameterization[draws=sobol]").supports(q, Target(lambda z: z.sum(-1)), 2)
    assert reason == "draws=sobol has at most 21201 dimensions, not 21202"


def test_what_needs_independent_samples_takes_no_other():
    for name in ("leave-one-out", "vargrad", "vimco", "iwae", "dreg"):
        with pytest.raises(UsageError, match="draws"):
            create(f"{name}[draws=antithetic]")
    with pytest.raises(UsageError, match="draws='qmc' is not one of iid, antithetic, sobol"):
        create("reparameterization[draws=qmc]")


def test_antithetic_draws_come_in_pairs():
    q = gaussian(torch.zeros(3, 2), torch.ones(3, 2))
    target = Target(lambda z: z.sum(-1))
    assert create("reparameterization[draws=antithetic]").supports(q, target, 1) is not None
    z = draws.rsample(q, 4, "antithetic")
    torch.testing.assert_close(z[:2], -z[2:])


# --- States of probability zero ---

IMPOSSIBLE = {
    "last": (1.0, -1e5, -1e5),
    "first": (-1e5, 1.0, 0.3),
    "between": (0.2, -1e5, -0.4, -1e5, 1.0),
    "masked": (-np.inf, 0.3, -np.inf, 1.0, -np.inf),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", draws.DRAWS)
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_no_category_of_probability_zero_is_ever_drawn(name, kind, dtype):
    torch.manual_seed(5)
    logits = torch.tensor(IMPOSSIBLE[name], dtype=dtype)
    never = logits < -1e4
    for family in (td.OneHotCategorical, td.Categorical):
        q = family(logits=logits, validate_args=False)
        z = draws.draw(q, 1_000_000, kind)
        counts = z.sum(0) if z.dim() > 1 else torch.bincount(z, minlength=len(logits))
        assert counts.sum() == 1_000_000
        assert not counts[never].any()
        assert bool(counts[~never].all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", draws.DRAWS)
def test_no_bit_of_probability_zero_is_ever_drawn(kind, dtype):
    torch.manual_seed(6)
    sure = torch.tensor([0.0, 1.0], dtype=dtype)
    z = draws.draw(td.Bernoulli(probs=sure, validate_args=False), 1_000_000, kind)
    assert torch.equal(z, sure.expand(1_000_000, 2))
    z = draws.draw(td.Bernoulli(logits=torch.tensor([-100.0, 100.0], dtype=dtype)), 1_000_000, kind)
    assert torch.equal(z, sure.expand(1_000_000, 2))


@pytest.mark.parametrize("noise", [0.0, 2.0**-60, 1 - 2.0**-53])
def test_nor_at_the_ends_of_the_noise(noise, monkeypatch):
    """Probabilities in float32 sum to less than 1 half of the time: a u above their sum has no category."""
    monkeypatch.setattr(
        draws.torch, "rand", lambda shape, **options: torch.full(shape, noise, dtype=torch.float64)
    )
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(400, 50, generator=generator)
    logits[:, :3] = logits[:, -5:] = -1e5
    q = td.OneHotCategorical(logits=logits)
    assert bool((q.probs.double().sum(-1) < 1).any())
    for kind in ("antithetic", "sobol"):
        z = draws.draw(q, 2, kind)
        assert not z[..., :3].any()
        assert not z[..., -5:].any()
        sure = draws.draw(td.Bernoulli(probs=torch.tensor([0.0, 1.0]).expand(3, 2)), 2, kind)
        assert torch.equal(sure, torch.tensor([0.0, 1.0]).expand(2, 3, 2))
