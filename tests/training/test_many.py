"""Runs trained at once are the runs of `train`: same weights, data, draws and numbers, whatever runs beside."""

from __future__ import annotations

import itertools
import math
import random

import numpy
import pytest
import torch
from elbograd.benchmarks import train, train_many
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import batches_of
from elbograd.benchmarks.training import many, stack
from elbograd.benchmarks.training.begin import Planned, begin_all
from elbograd.benchmarks.training.own_draws import OwnDraws
from elbograd.benchmarks.training.stack import Stack
from elbograd.estimators import Estimate, Estimator, Target, UsageError, catalogue, create
from elbograd.estimators.support import refusal
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode

GAUSSIAN, BERNOULLI = "vae[latent_dim=2,hidden=8]", "bernoulli-vae[latent_dim=3,hidden=8]"
CATEGORICAL = "categorical-vae[latent_dim=2,categories=3,hidden=8]"
SETTINGS = {"steps": 6, "evaluate_every": 3, "importance_samples": 4, "batch_size": 8}
#: Of numbers after a few steps; what separates two draws, or two states of a baseline, is a thousand times more.
RTOL = {"float64": 1e-9, "float32": 2e-4}


def tensors_of(result):
    modules = (result.problem.encoder, result.problem.decoder, result.estimator)
    return [tensor for module in modules for tensor in module.state_dict().values()]


def assert_same(result, alone, rtol=1e-9):
    """Objectives, likelihood, divergence, weights and the estimator's state."""
    assert [h.step for h in result.history] == [h.step for h in alone.history]
    for ours, theirs in zip(result.history, alone.history, strict=True):
        for name in ("train_objective", "heldout_objective"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=rtol, nan_ok=True)
    final = alone.heldout_log_likelihood
    assert result.heldout_log_likelihood == (None if final is None else pytest.approx(final, rel=rtol))
    assert (result.diverged, result.learning_rate) == (alone.diverged, alone.learning_rate)
    assert (result.case, result.objective) == (alone.case, alone.objective)
    if alone.diverged is None:
        for ours, theirs in zip(tensors_of(result), tensors_of(alone), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=30 * rtol, atol=rtol)


def each_alone(problem, estimator, seeds, learning_rates, **settings):
    return [
        train(problem, estimator, seed=seed, learning_rate=rate, **settings)
        for rate in learning_rates
        for seed in seeds
    ]


def compare(problem, estimator, seeds=(4, 7), learning_rates=(1e-2, 1e-3), rtol=1e-9, **settings):
    settings = {**SETTINGS, "dtype": "float64", **settings}
    together = train_many(problem, estimator, seeds=seeds, learning_rates=learning_rates, **settings)
    apart = each_alone(problem, estimator, seeds, learning_rates, **settings)
    for ours, theirs in zip(together, apart, strict=True):
        assert_same(ours, theirs, rtol)
    return together


def stacked(results):
    return all(result.notes == () for result in results)


@pytest.mark.parametrize(
    ("batch_size", "num_samples", "dtype"),
    [(1, 1, "float64"), (1, 3, "float32"), (16, 1, "float32"), (16, 3, "float64")],
)
@pytest.mark.parametrize(
    ("problem", "estimator"),
    [
        (GAUSSIAN, "reparameterization"),
        (GAUSSIAN, "sticking-the-landing"),
        (GAUSSIAN, "moving-average-baseline[decay=0.5]"),
        (GAUSSIAN, "learned-baseline[hidden=4]"),
        (BERNOULLI, "relax[hidden=4]"),
    ],
)
def test_runs_at_once_are_separate_runs(problem, estimator, batch_size, num_samples, dtype):
    settings = {"batch_size": batch_size, "num_samples": num_samples, "dtype": dtype}
    settings |= {"seeds": (4, 0, 7), "learning_rates": (1e-2,)}
    assert stacked(compare(problem, estimator, rtol=RTOL[dtype], **settings))


@pytest.mark.parametrize("estimator", ["reparameterization", "learned-baseline[hidden=4]"])
def test_a_stack_of_one_run_is_that_run(estimator):
    settings = {"num_samples": 2, "batch_size": 8, "device": None, "dtype": "float64"}
    (begun,) = begin_all([Planned(GAUSSIAN, 3, 1e-2)], estimator, "adam", settings)
    many._train_stacked([begun], [1e-2], "adam", 6, 3, None)
    alone = train(GAUSSIAN, estimator, seed=3, learning_rate=1e-2, **SETTINGS, num_samples=2, dtype="float64")
    assert_same(many._finished(begun, 1e-2, 4), alone)


def test_a_single_run_is_trained_as_ever():
    settings = {**SETTINGS, "optimizer": "sgd"}
    (run,) = train_many(GAUSSIAN, "reparameterization", seeds=[3], learning_rates=[1e-2], **settings)
    alone = train(GAUSSIAN, "reparameterization", seed=3, learning_rate=1e-2, **settings)
    assert run.history[-1].train_objective == alone.history[-1].train_objective


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_each_learning_rate_has_its_own_steps(optimizer):
    rates = (1e-4, 1e-2, 1e-3)
    found = compare(GAUSSIAN, "reparameterization", learning_rates=rates, optimizer=optimizer)
    assert [(r.learning_rate, r.case["seed"]) for r in found] == [(r, s) for r in rates for s in (4, 7)]
    assert len({r.history[-1].train_objective for r in found}) == len(found)


def test_a_run_is_the_same_whichever_run_beside_it():
    few, more = (
        train_many(GAUSSIAN, "score-function", seeds=seeds, **SETTINGS, dtype="float64")
        for seeds in ((5, 6), (6, 1, 2, 5))
    )
    assert_same(few[0], more[3])
    assert_same(few[1], more[0])


@pytest.mark.parametrize("name", catalogue())
def test_the_whole_catalogue_is_stacked(name):
    estimator = create(name)
    for model in (GAUSSIAN, BERNOULLI, "bayesian-mlp[hidden=8]"):
        problem = load_problem(model)
        x = next(problem.batches("train", 4, torch.Generator().manual_seed(0)))
        if refusal(estimator, problem.posterior(problem.encoder(x)), problem.target(x), 2) is None:
            break
    settings = {"num_samples": 2, "batch_size": 4, "steps": 2, "evaluate_every": 2, "importance_samples": 0}
    assert stacked(train_many(model, name, seeds=(0, 1), **settings))


@pytest.mark.parametrize(
    "problem", [CATEGORICAL, "gamma-poisson", "sigmoid-belief-network", "two-layer-gaussian"]
)
def test_other_posteriors_are_stacked(problem):
    found = compare(problem, "vargrad", learning_rates=(1e-3,), steps=2, evaluate_every=2, num_samples=2)
    assert stacked(found)


class Images:
    """A user's model: convolutions, norms, dropout or none, on random images."""

    def __init__(self, normalization, dropout=0.0, validate=None):
        self.validate = validate
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, 4)), nn.Conv2d(1, 3, 3, padding=1), normalization(3), nn.ReLU(),
            nn.Flatten(), nn.LayerNorm(48), nn.Dropout(dropout), nn.Linear(48, 4),
        )  # fmt: skip
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 16))

    def posterior(self, eta):
        mean, spread = eta.chunk(2, -1)
        return Independent(Normal(mean, nn.functional.softplus(spread), validate_args=self.validate), 1)

    def target(self, x):
        prior = Independent(Normal(x.new_zeros(2), x.new_ones(2)), 1)
        return Target(
            lambda z: Independent(Bernoulli(logits=self.decoder(z)), 1).log_prob(x.flatten(1)),
            prior,
            features=x.flatten(1),
        )

    def batches(self, split, batch_size, generator=None):
        generator = generator or torch.Generator().manual_seed(1)
        for _ in range(6):
            yield (torch.rand(batch_size, 4, 4, generator=generator) < 0.3).float()


def groups(channels):
    return nn.GroupNorm(1, channels)


@pytest.mark.parametrize(
    ("normalization", "dropout"), [(groups, 0.0), (nn.Identity, 0.5), (nn.BatchNorm2d, 0.0)]
)
@pytest.mark.parametrize("estimator", ["reparameterization", "learned-baseline[hidden=4]"])
def test_a_model_of_a_users_own_is_stacked(normalization, dropout, estimator):
    torch.manual_seed(0)
    assert stacked(compare(Images(normalization, dropout), estimator, rtol=1e-7))


FILE = """
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import batches_of

def model():
    problem = load_problem("vae[latent_dim=2,hidden=8]")
    for p in [*problem.encoder.parameters(), *problem.decoder.parameters()]:
        torch.nn.init.normal_(p, std=0.1)
    return problem
"""


def test_weights_that_a_seed_draws_are_those_of_train(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    found = compare(f"{tmp_path / 'mine.py'}:model", "reparameterization")
    assert stacked(found)
    assert len({result.case["weights"] for result in found}) == 2


class OfEachDatum(Estimator):
    """A baseline of every datum, found by its index."""

    per_datum = True

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(1500))

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z)
        elbo = f.mean(0) + ((f.detach() - self.average[target.index]) * q.log_prob(z)).mean(0)
        return Estimate(elbo, elbo, info={"f": f.detach().mean(0), "index": target.index})

    def update(self, estimate):
        index = estimate.info["index"]
        self.average = self.average.index_put((index,), estimate.info["f"].to(self.average))


class Lagging(Estimator):
    """Its `update` reads a parameter, which the optimizer has moved by then."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("before", torch.zeros(()))

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z)
        elbo = f.mean(0) + ((f.detach() - self.before) * q.log_prob(z)).mean(0)
        return Estimate(elbo, elbo, (f.detach() - self.offset).square().mean(0) if self.training else None)

    def update(self, estimate):
        self.before.copy_(self.offset.detach())


@pytest.mark.parametrize("make", [OfEachDatum, Lagging])
def test_state_of_a_plugin_is_each_runs_own(make):
    problem = load_problem("vae[latent_dim=2,hidden=8,kl_weight=0]")
    make.weighs_kl = True
    found = compare(problem, make())
    assert stacked(found)
    states = [next(iter(result.estimator.state_dict().values())) for result in found]
    assert not any(torch.equal(states[0], other) for other in states[1:])


def test_state_that_runs_share_is_found(monkeypatch):
    update = Stack._update

    def shared(self, estimate):
        update(self, estimate)
        self._held = {name: t.mean(0, keepdim=True).expand_as(t) for name, t in self._held.items()}

    monkeypatch.setattr(Stack, "_update", shared)
    found = compare(GAUSSIAN, "moving-average-baseline[decay=0.5]")
    assert found[0].notes == (
        "trained one run at a time: the gradients of all runs at once are not those of separate runs",
    )


def test_draws_that_runs_share_are_found(monkeypatch):
    vmap = torch.vmap
    monkeypatch.setattr(stack.torch, "vmap", lambda f, randomness: vmap(f, randomness="same"))
    assert not stacked(compare(GAUSSIAN, "reparameterization", steps=2))


def test_draws_that_are_not_a_runs_own_are_found(monkeypatch):
    monkeypatch.setattr(
        OwnDraws,
        "__torch_dispatch__",
        lambda self, func, types, args, kwargs=None: func(*args, **(kwargs or {})),
    )
    assert not stacked(compare(GAUSSIAN, "reparameterization", steps=2))


class Odd(Estimator):
    """Score function that cannot be stacked, for one reason or another."""

    def __init__(self, reason):
        super().__init__()
        self.reason, self.average = reason, 0.0

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z)
        elbo = f.mean(0) + ((f.detach() - self.average) * q.log_prob(z)).mean(0)
        if self.reason == "asks":
            elbo = elbo * (1.0 if f.sum().item() < 0 else 2.0)
        if self.reason == "numpy":
            elbo = elbo * float(1 + 0.1 * numpy.random.rand())
        if self.reason == "python":
            elbo = elbo * (1 + 0.1 * random.random())
        return Estimate(elbo, elbo)

    def update(self, estimate):
        if self.reason == "counts":
            self.average += 1.0


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("asks", "item"),
        ("numpy", "not those of separate runs"),
        ("python", "not those of separate runs"),
        ("counts", "neither parameters nor buffers"),
    ],
)
def test_what_cannot_be_stacked_is_trained_one_run_at_a_time(reason, told):
    problem = load_problem("vae[latent_dim=2,hidden=8,kl_weight=0]")
    Odd.weighs_kl = True
    found = compare(problem, Odd(reason))
    for result in found:
        (note,) = result.notes
        assert note.startswith("trained one run at a time: ")
        assert told in note
        assert "\n" not in note
        assert note in {row["reason"] for row in result.rows() if row["metric"] == "note"}


def test_models_that_are_not_alike_are_trained_one_at_a_time(tmp_path):
    text = FILE.replace("hidden=8]", "hidden=").replace(
        'hidden="', 'hidden=" + str(8 + torch.initial_seed()) + "]"'
    )
    (tmp_path / "mine.py").write_text(text)
    found = compare(f"{tmp_path / 'mine.py'}:model", "reparameterization", seeds=(1, 2))
    assert "other parameters" in found[0].notes[0]


def test_what_fails_on_the_way_is_trained_one_run_at_a_time(monkeypatch):
    step, calls = Stack.step, []

    def failing(self, data):
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("the factorization could not be completed")
        step(self, data)

    monkeypatch.setattr(Stack, "step", failing)
    found = compare(GAUSSIAN, "reparameterization")
    assert found[0].notes == ("trained one run at a time: the factorization could not be completed",)


def quadratic(validate):
    problem = load_problem("quadratic")
    if validate:
        problem.posterior = lambda eta: Independent(
            Normal(eta.chunk(2, -1)[0], eta.chunk(2, -1)[1].exp(), validate_args=True), 1
        )
    return problem


@pytest.mark.parametrize(("validate", "every"), [(False, 1), (False, 7), (True, 7), (True, 40)])
def test_a_run_that_diverges_stops_alone(validate, every):
    settings = {"steps": 40, "optimizer": "sgd", "evaluate_every": every, "importance_samples": 0}
    found = compare(quadratic(validate), "reparameterization", learning_rates=(1e6, 1e-2, 0.1), **settings)
    assert stacked(found)
    assert all(result.diverged is not None for result in found[:2])
    assert all(result.diverged is None for result in found[2:])
    assert all(math.isfinite(result.history[-1].train_objective) for result in found[2:])


class Overflowing(Estimator):
    """Score function of Bernoulli latents, drawn from probabilities that are NaN where a logit is huge."""

    weighs_kl = True

    def forward(self, q, target, num_samples):
        logits = q.base_dist.logits
        probs = torch.where(logits.abs() < 100, logits.sigmoid(), math.nan).detach()
        z = torch.bernoulli(probs.expand(num_samples, *probs.shape))
        f = target.log_likelihood(z)
        elbo = f.mean(0) + (f.detach() * q.log_prob(z)).mean(0)
        return Estimate(elbo, elbo)


def test_probabilities_that_are_none_stop_a_run_alone():
    settings = {"steps": 10, "optimizer": "sgd", "evaluate_every": 5, "importance_samples": 0}
    problem = load_problem("bernoulli-vae[latent_dim=3,hidden=8,kl_weight=0]")
    found = compare(problem, Overflowing(), learning_rates=(100.0, 1e-4), **settings)
    assert stacked(found)
    assert all(result.diverged for result in found[:2])
    assert all(result.diverged is None for result in found[2:])


def test_all_that_diverge_end_early():
    done = []
    settings = {"steps": 400, "optimizer": "sgd", "learning_rates": [5.0], "evaluate_every": 10}
    found = train_many("quadratic", "reparameterization", seeds=range(3), on_step=done.append, **settings)
    assert all(result.diverged for result in found)
    assert done == list(range(1, len(done) + 1))
    assert len(done) < 400


def test_nothing_of_the_users_is_changed():
    problem, estimator = load_problem(GAUSSIAN), create("moving-average-baseline")
    before = [p.clone() for p in (*problem.encoder.parameters(), *problem.decoder.parameters())]
    states = torch.get_rng_state(), random.getstate()
    train_many(problem, estimator, seeds=range(3), **SETTINGS)
    assert all(map(torch.equal, before, (*problem.encoder.parameters(), *problem.decoder.parameters())))
    assert float(estimator.weight) == 0
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


class NoReads(TorchDispatchMode):
    """A tensor's value that is asked for would make a step wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("problem", "estimator"),
    [
        (Images(nn.BatchNorm2d), "reparameterization"),
        (GAUSSIAN, "moving-average-baseline"),
        (BERNOULLI, "relax"),
        (CATEGORICAL, "learned-baseline"),
    ],
)
def test_no_step_reads_a_value(problem, estimator, monkeypatch):
    step, looked = Stack.step, []

    def unread(self, data):
        looked.append(data)
        with NoReads():
            step(self, data)

    monkeypatch.setattr(Stack, "step", unread)
    assert stacked(train_many(problem, estimator, seeds=range(2), **SETTINGS))
    assert len(looked) >= SETTINGS["steps"]


def test_seconds_are_shares_of_all():
    found = train_many(GAUSSIAN, "reparameterization", seeds=range(4), **SETTINGS)
    seconds = [[point.seconds for point in result.history] for result in found]
    assert seconds == [seconds[0]] * 4
    assert 0 == seconds[0][0] < seconds[0][1] < seconds[0][2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "no seed is given"),
        ({"seeds": 3}, "seeds must be integers, such as range(8), not 3"),
        ({"seeds": "12"}, "seeds must be integers, such as range(8), not '12'"),
        ({"seeds": [1, 2, 1]}, "seed 1 is given twice"),
        ({"seeds": [-1]}, "seed must be an integer from 0 to 2**63 - 1, not -1"),
        ({"learning_rates": []}, "no learning rate is given"),
        (
            {"learning_rates": 1e-3},
            "learning_rates must be positive numbers, such as [1e-3, 3e-3], not 0.001",
        ),
        ({"learning_rates": [1e-3, 0.0]}, "learning_rate must be a positive number, not 0.0"),
        ({"learning_rates": [1e-3, -1]}, "learning_rate must be a positive number, not -1"),
        ({"learning_rates": [1e-3, 0.001]}, "learning rate 0.001 is given twice"),
        ({"optimizer": "lion"}, "optimizer='lion' is not one of adam, sgd"),
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"on_step": 3}, "on_step must be a function, not 3"),
        ({"batch_size": 2000}, "batch size 2000 exceeds the 1500 training data"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UsageError) as caught:
        train_many("vae", "score-function", **{"seeds": [0, 1], **arguments})
    assert str(caught.value) == message


def test_batches_taken_ahead_are_the_same_and_few_more_than_are_used():
    """What a run of a few steps never sees may take its owner's time: less than as many again."""
    asked = []

    class Counted(type(load_problem("quadratic"))):
        def batches(self, split, batch_size, generator=None):
            for number in range(100):
                asked.append(number)
                yield torch.full((batch_size, 1), float(number))

    for steps in (1, 2, 5, 40):
        found = []
        for ahead in (False, True):
            asked.clear()
            passing = batches_of(Counted(), "train", 1, torch.Generator().manual_seed(0), ahead=ahead)
            found.append(torch.cat(list(itertools.islice(passing, steps))))
            assert steps <= len(asked) <= (2 * steps if ahead else steps)
        assert torch.equal(*found)
