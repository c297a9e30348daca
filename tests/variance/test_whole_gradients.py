"""Whole gradients drawn many at once are those of a loop, from the same random numbers or not at all."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.gradients import frozen, prepare, seeded
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.benchmarks.variance import lanes
from elbograd.benchmarks.variance.one_by_one import Subject
from elbograd.benchmarks.variance.whole_gradients import WholeGradients, whole_gradients
from elbograd.estimators import Estimate, Estimator, Target, catalogue, create
from elbograd.estimators.posteriors.layered import Layered
from replayed_draws import replicates_and_their_loop
from torch import nn
from torch.distributions import Independent, Normal
from variances import BatchMeanBaseline

R = 11  # no other dimension has this size
NETWORK = "sigmoid-belief-network[latent_dim=5,upper_dim=4]"
TOLERANCE = 1e-12  # of float64: some thousand operations


def gradients(problem, estimator, num_samples=2, wrt="phi", batch_size=3, dtype=torch.float64):
    problem = place(load_problem(problem) if isinstance(problem, str) else problem, dtype=dtype)
    estimator = create(estimator) if isinstance(estimator, str) else estimator
    x = first_batch(problem, batch_size, 0).to(dtype)
    with seeded(1, x.device):
        prepare(problem, estimator, x, num_samples, 3)
    return WholeGradients(Subject(problem, estimator, x, num_samples, wrt))


def largest_difference(drawn):
    """Between replicates drawn at once and a loop's, over the largest number there."""
    with frozen(drawn.subject.problem.decoder if drawn.subject.wrt == "phi" else nn.Module()):
        assert drawn.way != "one by one"
        with seeded(2, drawn.subject.x.device):
            together, apart = replicates_and_their_loop(drawn._way, lambda: drawn.one(1), R)
    assert together.dtype == torch.float64
    return float((together - apart).abs().max() / apart.abs().max())


class TwoLayers:
    """z¹ → z², Gaussian, q(z²|z¹) a network that φ enters through itself; modules as a user writes them."""

    def __init__(self, mode="plain"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            noisy = nn.Dropout(0.3) if mode == "dropout" else nn.Tanh()
            norm, other = (nn.BatchNorm1d(6) if mode == "batch norm" else nn.Tanh() for _ in range(2))
            self.encoder = nn.ModuleDict(
                {
                    "first": nn.Sequential(nn.Linear(4, 6), norm, noisy, nn.Linear(6, 4)),
                    "second": nn.Linear(2, 6),
                }
            )
            self.encoder.forward = self.encoder["first"].forward
            decoder = [nn.Linear(3, 6), nn.Flatten(0, -2), other]
            self.decoder = nn.Sequential(*decoder, nn.Linear(6, 4))

    @staticmethod
    def normal(numbers):
        loc, log_scale = numbers.chunk(2, -1)
        return Independent(Normal(loc, log_scale.exp()), 1)  # which validates, as by default

    def posterior(self, eta):
        return Layered({"z1": self.normal(eta), "z2": lambda z1: self.normal(self.encoder["second"](z1))})

    def target(self, x):
        prior = Layered(
            {
                "z1": Independent(Normal(x.new_zeros(2), 1.0), 1),
                "z2": lambda z1: Independent(
                    Normal(torch.zeros_like(z1[..., :1]).expand(*z1.shape[:-1], 3), 1.0), 1
                ),
            }
        )

        def log_likelihood(z):
            output = self.decoder(z[..., 2:]).unflatten(0, z.shape[:-1])
            return -(output - x).square().sum(-1)

        return Target(log_likelihood, prior, features=x)

    def batches(self, split, batch_size, generator=None):
        while True:
            yield torch.randn(batch_size, 4, generator=generator)


@pytest.mark.parametrize(
    ("name", "num_samples"),
    [
        ("score-function[kl=sampled]", 1),
        ("leave-one-out[kl=sampled]", 3),
        ("moving-average-baseline[kl=sampled]", 2),
        ("learned-baseline[kl=sampled]", 2),
        ("vimco", 4),
        ("reweighted-wake-sleep", 4),
        ("disarm[kl=sampled]", 2),
    ],
)
def test_a_posterior_that_holds_parameters_is_drawn_in_lanes(name, num_samples):
    drawn = gradients(NETWORK, name, num_samples)
    assert largest_difference(drawn) < TOLERANCE
    assert drawn.way == "in lanes"


def usable(problem, x):
    """Of the catalogue, each estimator with its smallest S."""
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    for name in catalogue():
        estimator = create(name)
        if not estimator.deterministic and estimator.supports(q, target, estimator.min_samples) is None:
            yield estimator


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("posterior", "at_least"), [("gaussian", 20), ("bernoulli", 30), ("categorical", 25)]
)
def test_the_whole_catalogue_runs_in_lanes(posterior, at_least):
    """Where φ enters through η it need not, but a hierarchy, or dropout of the decoder, has nothing else."""
    problem = place(load_problem(f"small-vae[posterior={posterior}]"), dtype=torch.float64)
    x = first_batch(problem, 3, 0).double()
    tried = 0
    for estimator in usable(problem, x):
        drawn = gradients(problem, estimator, estimator.min_samples)
        with frozen(problem.decoder):
            eta = problem.encoder(x).detach()
            in_lanes = lanes.Lanes(drawn.subject, [], eta)
            together, apart = replicates_and_their_loop(in_lanes, lambda: drawn.one(1), R)  # noqa: B023
        assert (together - apart).abs().max() < TOLERANCE * apart.abs().max(), estimator.label
        tried += 1
    assert tried >= at_least


@pytest.mark.parametrize("name", ["leave-one-out[kl=sampled]", "sticking-the-landing", "dreg"])
@pytest.mark.parametrize("mode", ["plain", "dropout", "batch norm"])
def test_a_hierarchy_with_modules_in_train_mode_is_drawn_in_lanes(name, mode):
    problem = TwoLayers(mode)
    drawn = gradients(problem, name)
    assert largest_difference(drawn) < TOLERANCE
    assert drawn.way == "in lanes"
    assert all(m.track_running_stats for m in problem.encoder.modules() if isinstance(m, nn.BatchNorm1d))


@pytest.mark.parametrize(
    "problem", [NETWORK, "vae[hidden=4]", TwoLayers("dropout")], ids=["network", "vae", "dropout"]
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_gradients_of_theta_too(problem, batch_size):
    drawn = gradients(problem, "score-function[kl=sampled]", wrt="theta", batch_size=batch_size)
    assert largest_difference(drawn) < TOLERANCE
    assert drawn.way == "in lanes"


@pytest.mark.parametrize(
    "name", ["reparameterization[draws=sobol]", "dreg", "relax", BatchMeanBaseline()], ids=str
)
def test_where_eta_is_all_one_call_serves_all(name):
    problem = "bernoulli-vae[latent_dim=3,hidden=4]" if name == "relax" else "vae[latent_dim=3,hidden=4]"
    drawn = gradients(problem, name)
    assert largest_difference(drawn) < TOLERANCE
    assert drawn.way == "through eta"


class NoLeadingDimensions:
    """q and p(x|z) as of a user who thinks of eta (B, P) and z (S, B, D) alone."""

    def __init__(self):
        self.encoder, self.decoder = nn.Linear(4, 6), nn.Linear(3, 4)

    def posterior(self, eta):
        return Independent(Normal(eta[:, :3], eta[:, 3:].exp()), 1)

    def target(self, x):
        def log_likelihood(z):
            samples, data, size = z.shape
            output = self.decoder(z.reshape(samples * data, size)).reshape(samples, data, 4)
            return -(output - x).square().sum(-1)

        return Target(log_likelihood, Independent(Normal(x.new_zeros(3), x.new_ones(3)), 1))

    batches = TwoLayers.batches


@pytest.mark.parametrize("wrt", ["phi", "theta"])
def test_a_model_that_takes_no_leading_dimension_is_drawn_in_lanes(wrt):
    drawn = gradients(NoLeadingDimensions(), "reparameterization", wrt=wrt)
    assert largest_difference(drawn) < TOLERANCE
    assert drawn.way == "in lanes"
    v = measure_variance(
        NoLeadingDimensions(),
        "leave-one-out",
        num_samples=2,
        batch_size=3,
        replicates=40,
        wrt=wrt,
        route="full",
    )
    assert (v.replicates, v.evaluations) == (40, 2)
    assert v.total > 0


def test_how_many_are_drawn_at_once_follows_from_sizes():
    """Of the widest layer, of S and B, and of the number of parameters; a few of the largest go one by one."""
    sizes = [(1, 1), (4, 1), (4, 16), (100, 16)]
    chunks = [
        gradients(NETWORK, "leave-one-out[kl=sampled]", max(2, s), batch_size=b).chunk for s, b in sizes
    ]
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[0] == 1024
    for (s, b), chunk in zip(sizes, chunks, strict=True):
        assert chunk * max(2, s) * b * 64 <= 2**21 or chunk == 1
    assert gradients(NETWORK, "score-function[kl=sampled]", 300, batch_size=64).way == "one by one"


class Odd(Estimator):
    """A score function with one peculiarity."""

    def __init__(self, peculiarity):
        super().__init__()
        self.peculiarity = peculiarity
        self.generator = torch.Generator()

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z).detach()
        return Estimate(((f + self.baseline(f)) * q.log_prob(z)).mean(0), f.mean(0))

    def baseline(self, f):
        if self.peculiarity == "asks for a value":
            return 1.0 if f.mean().item() > 0 else 2.0
        if self.peculiarity == "branches on a value":
            return 1.0 if f.mean() > 0 else 2.0
        if self.peculiarity == "couples replicates":
            return -f.mean()
        if self.peculiarity == "draws from numpy":
            return numpy.random.rand()
        if self.peculiarity == "draws from Python":
            return random.random()
        return torch.rand((), generator=self.generator)  # "draws from its own"


@pytest.mark.parametrize("problem", [NETWORK, "vae[latent_dim=3,hidden=4]"])
@pytest.mark.parametrize(
    ("peculiarity", "expected"),
    [
        ("asks for a value", {"one by one", "through eta"}),
        ("branches on a value", {"one by one", "through eta"}),
        ("couples replicates", {"in lanes"}),
        ("draws from numpy", {"one by one"}),
        ("draws from Python", {"one by one"}),
        ("draws from its own", {"one by one"}),
    ],
)
def test_what_cannot_be_drawn_at_once_is_drawn_in_a_loop(problem, peculiarity, expected, recwarn):
    drawn = gradients(problem, Odd(peculiarity))
    assert drawn.way in expected
    with seeded(3, drawn.subject.x.device):
        assert torch.cat(list(drawn.chunks(5))).shape == (5, sum(drawn.subject.sizes))
    assert len(recwarn) == 0


def test_draws_shared_by_the_lanes_are_found(monkeypatch):
    vmap = torch.vmap
    monkeypatch.setattr(lanes.torch, "vmap", lambda f, randomness: vmap(f, randomness="same"))
    assert gradients(NETWORK, "score-function[kl=sampled]").way == "one by one"


def test_a_parameter_that_is_missed_is_found(monkeypatch):
    """As of a model that holds a parameter where no module does: the copy stands nowhere."""
    monkeypatch.setattr(lanes, "_places", lambda *_: [])
    assert gradients(NETWORK, "score-function[kl=sampled]").way == "one by one"


def test_the_seed_says_what_is_drawn():
    problem = load_problem(NETWORK)
    x = first_batch(problem, 4, 0)
    estimator = create("leave-one-out[kl=sampled]")
    prepare(problem, estimator, x, 2, None)

    def draw(seed):
        with seeded(seed, x.device):
            return whole_gradients(problem, estimator, x, 2, 40)

    first = draw(0)
    assert torch.equal(draw(0), first)
    assert not torch.equal(draw(1), first)
    assert len(first.unique(dim=0)) == 40


def test_a_few_are_not_worth_a_pilot():
    drawn = gradients(NETWORK, "score-function[kl=sampled]")
    (few,) = drawn.chunks(31)
    assert len(few) == 31
    assert drawn._way is None
    assert sum(map(len, drawn.chunks(32))) == 32
    assert drawn._way is not None


@pytest.mark.usefixtures("unchecked_shapes")
def test_both_ways_measure_the_same_variance(monkeypatch):
    """Of 1,000 replicates each; the totals differ by more than 5 standard errors once in 10⁶ runs."""
    together = measure_variance(NETWORK, "vimco", num_samples=3, batch_size=4, replicates=1000)
    monkeypatch.setattr(WholeGradients, "_right_ways", lambda self: iter(()))
    apart = measure_variance(NETWORK, "vimco", num_samples=3, batch_size=4, replicates=1000)
    error = sum(v.moments[""].stderr ** 2 for v in (together, apart)) ** 0.5
    assert abs(together.total - apart.total) < 5 * error
    assert together.notes == apart.notes


def test_a_measurement_of_a_few_ends():
    v = measure_variance(NETWORK, "score-function[kl=sampled]", replicates=5, num_samples=2, batch_size=2)
    assert v.replicates == 5
