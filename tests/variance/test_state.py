"""Estimators with state are measured as training leaves them: on data that their state was not fitted on.

Seeds are fixed. Comparisons allow 4.5 standard errors, a false alarm of 7e-6 each; the planted fault, state fitted
on the measured batch, is twice and more away.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.cases.session import Point, Session
from elbograd.benchmarks.cases.variance import Variance
from elbograd.benchmarks.gradients import StateStep, make_ready
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.as_trained import eta_of
from elbograd.benchmarks.problems.datum_index import index_of
from elbograd.benchmarks.problems.fresh_batches import fresh_batches
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.benchmarks.problems.vae import GaussianVAE
from elbograd.benchmarks.training.state_along import _Follower, train_state_along
from elbograd.benchmarks.training.trajectory import walk
from elbograd.estimators import Estimate, Estimator, Target, create
from elbograd.estimators.errors import EstimatorError
from elbograd.estimators.pieces.objective import analytic_kl
from elbograd.estimators.posteriors.distributions import draw, log_prob
from torch import nn
from torch.distributions import Independent, Normal

B, D = 16, 2


class Clusters:
    """A linear VAE whose data differ much in their likelihood: 4 groups, 160 data."""

    latent_dim = D

    def __init__(self, data=160):
        generator = torch.Generator().manual_seed(5)
        self.encoder, self.decoder = nn.Linear(3, 2 * D), nn.Linear(D, 3)
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=generator)
        centre = torch.tensor([0.0, 2.0, 5.0, 9.0])[torch.arange(data) % 4]
        self.data = centre[:, None] + torch.rand(data, 3, generator=generator)

    def posterior(self, eta):
        loc, log_scale = eta.chunk(2, -1)
        return Independent(Normal(loc, log_scale.exp()), 1)

    def target(self, x):
        prior = Independent(Normal(torch.zeros(D).to(x), torch.ones(D).to(x)), 1)
        return Target(lambda z: -(self.decoder(z) - x).square().sum(-1), prior, features=x)

    def batches(self, split, batch_size, generator=None):
        data = self.data
        if generator is not None:
            data = data[torch.randperm(len(data), generator=generator)]
        yield from data.split(batch_size)


class Indexed(Clusters):
    """Clusters that say which data they serve."""

    def indexed_batches(self, split, batch_size, generator=None):
        order = torch.arange(len(self.data))
        if generator is not None:
            order = torch.randperm(len(self.data), generator=generator)
        for index in order.split(batch_size):
            yield self.data[index], index


class Remembers(Estimator):
    """The score function with a moving average: of each place in the batch, or of each datum."""

    def __init__(self, per_datum=False, size=160, momentum=0.9):
        super().__init__()
        self.per_datum, self.momentum = per_datum, momentum
        self.register_buffer("mean", torch.zeros(size))

    def places(self, target, count):
        return target.index if self.per_datum else torch.arange(count)

    def forward(self, q, target, num_samples):
        z = draw(q, num_samples)
        f, log_q = target.log_likelihood(z), log_prob(q, z)
        places = self.places(target, f.shape[-1])
        centred = f.detach() - self.mean[places]
        elbo = (f + centred * (log_q - log_q.detach())).mean(0) - analytic_kl(q, target)
        info = {"f": f.detach().mean(0), "places": places}
        return Estimate(elbo, elbo, info=info)

    def update(self, estimate):
        places = estimate.info["places"]
        self.mean[places] = self.momentum * self.mean[places] + (1 - self.momentum) * estimate.info["f"]


def by_hand(problem, estimator, x, updates=400, replicates=1500):
    """Total variance after a loop over shuffled batches of other data, all written out, and its standard error."""
    torch.manual_seed(17)
    others = problem.data[~(problem.data[:, None] == x).all(-1).any(1)]
    estimator.train()
    own = list(estimator.parameters())
    optimizer = torch.optim.Adam(own, lr=1e-2) if own else None
    for _ in range(updates):
        batch = others[torch.randperm(len(others))[:B]]
        estimate = estimator(
            problem.posterior(problem.encoder(batch).detach().requires_grad_()), problem.target(batch), 2
        )
        if optimizer:
            optimizer.zero_grad()
            estimate.aux_loss.mean().backward(inputs=own)
            optimizer.step()
        estimator.update(estimate)
    estimator.eval()
    gradients = []
    for _ in range(replicates):
        surrogate = estimator(problem.posterior(problem.encoder(x)), problem.target(x), 2).surrogate.mean()
        parts = torch.autograd.grad(surrogate, list(problem.encoder.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    centred = torch.stack(gradients).double()
    each = (centred - centred.mean(0)).square().sum(1)
    return float(each.mean()), float(each.std()) / replicates**0.5


@pytest.mark.parametrize(
    "make", [Remembers, lambda: create("learned-baseline[hidden=8]")], ids=["place", "learned"]
)
def test_the_variance_is_that_of_a_loop_over_other_data(make):
    torch.manual_seed(0)
    problem = Clusters()
    x = problem.data[:B]
    v = measure_variance(problem, make(), x, num_samples=2, replicates=3000, warmup=400)
    trained = make()
    trained.init(problem.posterior(problem.encoder(x)), problem.target(x))
    total, error = by_hand(problem, trained, x)
    own = (v.ci_high - v.ci_low) / 3.92
    # The two states come of other orders of the data; the moving average of a place is 10 data's.
    assert abs(v.total - total) < 4.5 * (error**2 + own**2) ** 0.5 + 0.2 * total
    assert v.state_updates == 400
    assert v.notes == ()


def test_what_remembers_the_place_looks_far_better_on_the_data_that_it_was_fitted_on():
    """So the comparison above would see it."""
    problem = Clusters()
    x = problem.data[:B]
    honest = measure_variance(problem, Remembers(), x, num_samples=2, replicates=2000)
    fitted = Remembers()
    step = StateStep(problem, fitted, 2)
    for _ in range(400):
        step(x)
    cheating = measure_variance(problem, fitted, x, num_samples=2, replicates=2000, warmup=0)
    assert honest.total > 3 * cheating.total


def test_a_problem_of_one_batch_says_what_its_state_was_fitted_on():
    problem = Clusters(data=B)
    v = measure_variance(problem, Remembers(), num_samples=2, replicates=50, batch_size=B, warmup=3)
    assert v.notes == ("state fitted on the measured data, there are no others",)
    rows = v.rows()
    said = [row["reason"] for row in rows if row["metric"] == "note"]
    assert said == [*v.notes, "state after 3 updates"]
    assert [row["value"] for row in rows if row["metric"] == "state_updates"] == [3]


@pytest.mark.parametrize("size", [1, 5, 16, 100])
def test_fresh_batches_are_whole_and_without_the_measured_data(size):
    problem = Clusters()
    x = problem.data[:size]
    served = fresh_batches(problem, x, torch.Generator().manual_seed(0))
    for batch in itertools.islice(served, 40):
        assert batch.shape == x.shape
        assert not (batch[:, None] == x).all(-1).any()


def test_data_given_without_their_index_are_known_by_what_they_are():
    problem = Indexed()
    x = problem.data[:B].clone()
    served = fresh_batches(problem, x, torch.Generator().manual_seed(0))
    for batch in itertools.islice(served, 40):
        assert not (batch[:, None] == x).all(-1).any()


def test_few_other_data_are_repeated_and_told():
    problem = Clusters(data=B + 3)
    v = measure_variance(problem, Remembers(), problem.data[:B], num_samples=2, replicates=20, warmup=4)
    assert v.notes == ("state trained on 3 other data, there are no more",)
    (batch,) = itertools.islice(fresh_batches(problem, problem.data[:B], torch.Generator()), 1)
    assert len(batch) == B
    assert len(batch.unique(dim=0)) == 3


class Lengths(Clusters):
    """Sequences, a batch of one length at a time."""

    def batches(self, split, batch_size, generator=None):
        for k, part in enumerate(super().batches(split, batch_size, generator)):
            yield part if k % 2 else torch.cat((part, part), 1)


def test_batches_of_other_shapes_are_data_too():
    problem = Lengths()
    problem.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 2 * D))
    served = fresh_batches(problem, problem.data[:B], torch.Generator())
    assert {batch.shape[1] for batch in itertools.islice(served, 30)} == {3, 6}


class Endless(Clusters):
    """Data without end, all of which are measured."""

    def batches(self, split, batch_size, generator=None):
        while True:
            yield self.data[:batch_size]


def test_a_pass_without_end_or_anything_new_is_given_up():
    problem = Endless()
    assert fresh_batches(problem, problem.data[:B], torch.Generator()) is None


def test_images_that_are_drawn_anew_are_known_by_their_index():
    problem = load_problem("vae")
    x = first_batch(problem, 64, seed=3)
    measured = index_of(x)
    served = fresh_batches(problem, x, torch.Generator().manual_seed(0))
    seen = torch.cat([index_of(batch) for batch in itertools.islice(served, 60)])
    assert len(seen.unique()) == 1500 - 64
    assert not torch.isin(seen, measured).any()
    kept = fresh_batches(problem, x, torch.Generator().manual_seed(0), without=False)
    seen = torch.cat([index_of(batch) for batch in itertools.islice(kept, 40)])
    assert torch.isin(measured, seen).all()


def test_served_images_are_the_same_with_and_without_their_index():
    problem = load_problem("vae")
    for seed in (None, 4):
        generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
        plain = list(problem.batches("train", 700, generators[0]))
        indexed = list(problem.indexed_batches("train", 700, generators[1]))
        assert all(torch.equal(a, b) for a, (b, _) in zip(plain, indexed, strict=True))
        if seed is not None:
            assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_baseline_of_each_datum_is_trained_on_the_passes_before():
    problem = Indexed()
    place = measure_variance(problem, Remembers(), num_samples=2, replicates=1000, batch_size=B)
    datum = measure_variance(problem, Remembers(per_datum=True), num_samples=2, replicates=1000, batch_size=B)
    assert datum.total < 0.7 * place.total
    assert datum.notes == ("state of each datum trained on the measured data too",)


def test_state_is_trained_along_the_trajectory_without_moving_it(tmp_path):
    x = first_batch(load_problem("vae[hidden=8]"), 32, seed=1)
    estimator = create("learned-baseline[hidden=4]")
    alone = walk(load_problem("vae[hidden=8]"), (0, 6), 1)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    states = train_state_along(load_problem("vae[hidden=8]"), estimator, x, 2, (4, 6), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert states.keys() == {4, 6}
    beside = walk(load_problem("vae[hidden=8]"), (6,), 1, _Follower(estimator, x, 2, (6,), 1))
    torch.testing.assert_close(beside.states[6]["encoder"], alone.states[6]["encoder"], rtol=0, atol=0)
    point = Point("vae[hidden=8]", 32, 1, "cpu", "float32", 6, (0, 4, 6), None)
    first, updates = Session(tmp_path).estimator_at(point, "learned-baseline[hidden=4]", 2)
    again, _ = Session(tmp_path).estimator_at(point, "learned-baseline[hidden=4]", 2)  # from the file
    assert updates == 6
    assert len(list(tmp_path.glob("checkpoints/state-*.pt"))) == 1
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, states[6][name], rtol=0, atol=0)
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)


def test_a_step_of_the_state_is_that_of_training():
    """Against `TrainingStep` on a problem whose weights do not move."""
    from elbograd.benchmarks.training.step import TrainingStep

    problem = Clusters()
    x = problem.data[:B]
    states = []
    for train in (True, False):
        torch.manual_seed(2)
        estimator = create("learned-baseline[hidden=4]")
        make_ready(problem, estimator, x, eta_of(problem, x), 2)
        estimator.train()
        if train:
            step = TrainingStep(problem, estimator, [torch.optim.Adam(estimator.parameters(), lr=1e-2)], 2)
        else:
            step = StateStep(problem, estimator, 2)
        torch.manual_seed(3)
        for start in range(0, 64, B):
            step(problem.data[start : start + B])
        states.append(estimator.state_dict())
    torch.testing.assert_close(states[0], states[1])


class KeepsAnAttribute(Remembers):
    """Its mean is a plain number."""

    def __init__(self):
        super().__init__(size=32)
        self.level = 0.0

    def update(self, estimate):
        self.level += 0.1 * (float(estimate.info["f"].mean()) - self.level)


def test_state_that_no_state_dict_holds_is_told_and_not_lost():
    """A cold state would be measured, and said to have seen so many updates."""
    problem = load_problem("vae[hidden=8]")
    x = first_batch(problem, 32, seed=1)
    with pytest.raises(
        EstimatorError, match="keeps state in level, which its state_dict lacks: make it a buffer"
    ):
        train_state_along(problem, KeepsAnAttribute(), x, 2, (2,), 1)


def test_a_subclass_with_data_of_its_own_is_not_served_those_it_inherits():
    class Own(GaussianVAE):
        def batches(self, split, batch_size, generator=None):
            yield torch.full((batch_size, 64), 0.25)

    x = first_batch(Own(), 8, 0)
    assert torch.equal(x, torch.full((8, 64), 0.25))
    assert index_of(x) is None
    replaced = load_problem("vae")
    replaced.batches = Own().batches
    assert torch.equal(first_batch(replaced, 8, 0), x)


@pytest.mark.parametrize(
    ("problem", "note"),
    [
        ("quadratic", "state fitted on the measured data, there are no others"),
        ("vae[hidden=8]", None),
    ],
)
def test_what_state_was_fitted_on_is_told_along_the_trajectory_too(problem, note):
    asked = Variance(
        estimator=("moving-average-baseline",),
        problem=(problem,),
        num_samples=(2,),
        batch_size=(),
        replicates=20,
        step=(0, 3),
        latent_dim=(),
    )
    for case in asked.grid():
        rows = Variance.execute(case, Session(timings=False))
        told = [row["reason"] for row in rows if row["metric"] == "note"]
        updates = 500 if case.step == 0 else 3
        assert told == [*([note] if note else []), f"state after {updates} updates"]
