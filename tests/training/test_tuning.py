"""Tuning: the same trials for every estimator, each the training run that it claims to be."""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.benchmarks import train, tune
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.training import tuning
from elbograd.benchmarks.training.trials import at_edge, planned_trials, with_own
from elbograd.benchmarks.training.tuning import split_to_choose_by
from elbograd.estimators import UsageError, create

GAUSSIAN = "vae[latent_dim=2,hidden=8,validation=100]"
BERNOULLI = "bernoulli-vae[latent_dim=3,hidden=8]"
RANGE = (1e-4, 3e-2)
FEW = {"trials": 4, "steps": 6, "batch_size": 16, "num_samples": 2}


def test_every_estimator_has_the_same_trials():
    one, other = (planned_trials(name, 20, RANGE, 3) for name in ("leave-one-out", "gumbel-softmax"))
    assert [(t.number, t.seed, t.learning_rate) for t in one] == [
        (t.number, t.seed, t.learning_rate) for t in other
    ]
    assert len({t.seed for t in one}) == 20
    assert all(RANGE[0] <= t.learning_rate <= RANGE[1] for t in one)
    assert planned_trials("leave-one-out", 20, RANGE, 4)[0].learning_rate != one[0].learning_rate


def test_rates_are_log_uniform():
    # 400 logarithms of rates, uniform on (0, 1) after scaling: the mean is off by 0.06 with probability 3e-5.
    low, high = map(math.log, RANGE)
    places = [(math.log(t.learning_rate) - low) / (high - low) for t in planned_trials("arm", 400, RANGE, 0)]
    assert sum(places) / 400 == pytest.approx(0.5, abs=0.06)
    assert sum(p < 0.25 for p in places) / 400 == pytest.approx(0.25, abs=0.09)


def test_hyperparameters_of_its_own_are_inside_the_budget():
    tried = planned_trials("gumbel-softmax", 20, RANGE, 0)
    assert len(tried) == 20
    assert len({t.own["temperature"] for t in tried}) == 5
    low, high = create("gumbel-softmax").search_space["temperature"]
    assert all(low <= t.own["temperature"] <= high for t in tried)
    assert all(not t.own for t in planned_trials("gumbel-softmax[temperature=0.7]", 20, RANGE, 0))
    assert all(not t.own for t in planned_trials("leave-one-out", 20, RANGE, 0))


def test_every_search_space_is_of_the_constructors_arguments():
    from elbograd.estimators import catalogue

    for name in catalogue():
        for argument, (low, high) in create(name).search_space.items():
            assert 0 < low < high
            for value in (low, high):
                create(with_own(name, {argument: value}))


@pytest.mark.parametrize(
    "space", ["{'kl': 0.5}", "{'kl': (0.0, 1.0)}", "{'kl': (2.0, 1.0)}", "{'kl': (1, 2, 3)}", "['kl']"]
)
def test_a_search_space_that_is_none_is_told_in_one_line(tmp_path, space):
    file = tmp_path / "mine.py"
    file.write_text(
        "from elbograd.estimators import create\n"
        "class Mine(type(create('leave-one-out'))):\n"
        f"    search_space = {space}\n"
    )
    with pytest.raises(UsageError, match="search_space") as error:
        planned_trials(str(file), 4, RANGE, 0)
    assert "\n" not in str(error.value)


def test_the_edge_of_the_range_is_told():
    assert at_edge(1.2e-4, RANGE) == "lower"
    assert at_edge(2.9e-2, RANGE) == "upper"
    assert at_edge(2e-3, RANGE) == ""


@pytest.mark.parametrize("estimator", ["reparameterization", "moving-average-baseline", "learned-baseline"])
def test_a_trial_is_the_run_it_claims_to_be(estimator):
    found = tune(GAUSSIAN, estimator, seed=5, dtype="float64", **FEW)
    for trial, planned in zip(found.trials, planned_trials(estimator, 4, RANGE, 5), strict=True):
        alone = train(
            GAUSSIAN,
            estimator,
            seed=planned.seed,
            learning_rate=planned.learning_rate,
            importance_samples=0,
            dtype="float64",
            **{k: v for k, v in FEW.items() if k != "trials"},
        )
        rows = [r["value"] for r in trial.rows if r["metric"] == "heldout_objective"]
        assert rows[-1] == pytest.approx(alone.history[-1].heldout_objective, rel=1e-9)
        assert trial.learning_rate == alone.learning_rate


def test_trials_are_scored_on_validation_data():
    found = tune(GAUSSIAN, "reparameterization", **FEW)
    assert found.chosen_on == "validation"
    without = tune("vae[latent_dim=2,hidden=8]", "reparameterization", **FEW)
    assert without.chosen_on == "train"
    assert found.best.score == max(trial.score for trial in found.trials)
    assert found.expected_best()[-1] == pytest.approx(found.best.score)
    assert found.expected_best()[0] == pytest.approx(sum(t.score for t in found.trials) / 4)


def test_tuning_prefers_the_rate_that_trains():
    found = tune(
        GAUSSIAN, "reparameterization", trials=6, steps=60, learning_rates=(1e-7, 1e-1), batch_size=32
    )
    assert 1e-3 < found.best.learning_rate < 1e-1


def test_a_trial_that_diverges_leaves_what_was_there_before():
    settings = {**FEW, "steps": 40, "optimizer": "sgd", "learning_rates": (1e-5, 1e9)}
    found = tune(GAUSSIAN, "reparameterization", **settings)
    lost = [trial for trial in found.trials if trial.diverged]
    assert lost
    assert not found.best.diverged
    for trial in lost:
        first = next(r for r in trial.rows if r["metric"] == "tuning_objective")
        assert trial.score == first["value"]
        assert math.isfinite(trial.score)
        assert any(r["status"] == "diverged" for r in trial.rows)


def test_where_every_trial_diverges_there_is_no_best():
    settings = {**FEW, "steps": 40, "optimizer": "sgd", "learning_rates": (1e8, 1e9)}
    found = tune(GAUSSIAN, "reparameterization", **settings)
    assert found.best is None
    assert found.edge == ""


class Split:
    """A problem whose batches know what is asked of them in its own way."""

    def __init__(self, answer):
        self.inner, self.answer = load_problem(GAUSSIAN), answer
        self.encoder, self.decoder = self.inner.encoder, self.inner.decoder
        self.posterior, self.target = self.inner.posterior, self.inner.target

    def batches(self, split, batch_size, generator=None):
        return self.answer(self.inner, split, batch_size, generator)


def refusing(inner, split, *rest):
    if split == "validation":
        raise KeyError(split)
    return inner.batches(split, *rest)


def shuffled(inner, split, *rest):
    """Test data in another order at each call, by every name but "train"."""
    for x in inner.batches("train" if split == "train" else "test", *rest):
        yield x[torch.randperm(len(x))]


@pytest.mark.parametrize(
    ("answer", "split"),
    [
        (lambda inner, *asked: inner.batches(*asked), "validation"),
        (refusing, "train"),
        # Every name but "train" is taken for testing: to choose by that would be to choose by the test data.
        (lambda inner, split, *rest: inner.batches("train" if split == "train" else "test", *rest), "train"),
        (lambda inner, split, *rest: inner.batches("test" if split == "test" else "train", *rest), "train"),
        (lambda inner, split, *rest: shuffled(inner, split, *rest), "train"),
        (
            lambda inner, split, *rest: iter(()) if split == "validation" else inner.batches(split, *rest),
            "train",
        ),
    ],
)
def test_test_data_are_never_chosen_by(answer, split):
    assert split_to_choose_by(Split(answer)) == split


def test_a_model_of_ones_own_is_tuned_and_left_alone():
    problem = load_problem(GAUSSIAN)
    before = [p.detach().clone() for p in problem.encoder.parameters()]
    found = tune(problem, "reparameterization", **FEW)
    assert len(found.trials) == 4
    assert all(torch.equal(a, b) for a, b in zip(before, problem.encoder.parameters(), strict=True))


def test_own_hyperparameters_are_tuned():
    found = tune(BERNOULLI, "straight-through", **FEW)
    assert found.estimator == f"straight-through[temperature={found.best.own['temperature']}]"


def test_groups_hold_no_more_than_a_kill_may_lose():
    tried = planned_trials("gumbel-softmax", 30, RANGE, 0) + planned_trials("arm", 25, RANGE, 0)
    groups = list(tuning._groups(tried))
    assert max(map(len, groups)) <= 10
    assert sorted(t.number for group in groups for t in group) == sorted(t.number for t in tried)
    assert all(len({tuple(t.own.items()) for t in group}) == 1 for group in groups)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"trials": 0}, "trials must be an integer of at least 1, not 0"),
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"learning_rates": (1e-2, 1e-3)}, "must be a lowest and a highest, not"),
        ({"learning_rates": 1e-3}, "must be two numbers, such as"),
        ({"learning_rates": (0.0, 1e-3)}, "learning_rate must be a positive number, not 0.0"),
        ({"optimizer": "adma"}, "optimizer"),
        ({"estimator": 3}, "estimator must be a specification"),
        ({"on_step": 3}, "on_step"),
    ],
)
def test_what_cannot_be_tuned_is_told_in_one_line(bad, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as error:
        tune(**{"problem": GAUSSIAN, "estimator": "reparameterization", **FEW, **bad})
    assert "\n" not in str(error.value)
