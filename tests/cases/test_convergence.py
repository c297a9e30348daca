"""A case of the convergence benchmark: tuned runs, the same untuned, and what a kill leaves."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from elbograd.benchmarks import train
from elbograd.benchmarks.cases.convergence import Convergence
from elbograd.benchmarks.cases.session import Session
from elbograd.benchmarks.cases.training import run as convergence_run
from elbograd.benchmarks.rows.tuning import trials
from elbograd.benchmarks.rows.wide import select
from elbograd.benchmarks.store import RunFolder
from elbograd.benchmarks.store.partial import Partial
from elbograd.benchmarks.training import tuning
from elbograd.benchmarks.training.checkpoints import given_problem_at, steps_in
from elbograd.estimators import UsageError

PROBLEM = "bernoulli-vae[latent_dim=3,hidden=4,validation=100]"
SMALL = Convergence(
    estimator=("leave-one-out",),
    problem=(PROBLEM,),
    batch_size=(16,),
    steps=8,
    seeds=3,
    trials=4,
    tuning_steps=4,
)


def measured(asked=SMALL, session=None):
    (case,) = asked.grid()
    return pd.DataFrame(Convergence.execute(case, session or Session()))


@pytest.fixture(scope="module")
def rows():
    return measured()


def numbers(rows):
    """What has to be the same again: all but seconds."""
    kept = rows[rows["metric"] != "seconds"]
    return kept[["metric", "parameter", "step", "seed", "value", "status", "reason"]].reset_index(drop=True)


def test_the_tuned_runs_are_those_of_train(rows):
    found = select(rows, "convergence")
    rate = found.loc[found["metric"] == "learning_rate", "value"].unique()
    assert len(rate) == 1
    for seed in (0, 1, 2):
        problem = Convergence.model(PROBLEM, seed)
        alone = train(
            problem,
            "leave-one-out",
            seed=seed,
            learning_rate=float(rate[0]),
            steps=8,
            num_samples=2,
            batch_size=16,
        )
        one = found[(found["seed"] == seed) & (found["metric"] == "heldout_objective")].sort_values("step")
        assert one["value"].to_numpy() == pytest.approx(
            [point.heldout_objective for point in alone.history if point.step in set(one["step"])], rel=1e-4
        )


def test_the_rate_is_that_of_the_best_trial(rows):
    tried = trials(rows)
    assert len(tried) == 4
    best = tried.sort_values("tuning_objective")["learning_rate"].iloc[-1]
    found = select(rows, "convergence")
    assert found.loc[found["metric"] == "learning_rate", "value"].unique() == pytest.approx(best)


def test_an_untuned_row_is_part_of_the_result(rows):
    untuned = rows[rows["parameter"] == "untuned"]
    assert set(untuned.loc[untuned["metric"] == "learning_rate", "value"]) == {3e-3}
    assert untuned[untuned["metric"] == "heldout_objective"]["seed"].nunique() == 3


def test_what_is_reported_reads_as_before(rows):
    """Trials and untuned runs are parts, which no reader takes for the case."""
    found = select(rows, "convergence")
    assert set(found["seed"]) == {0, 1, 2}
    assert found["step"].max() == 8
    assert {"evaluations", "seconds", "exact_log_likelihood", "annealed_gain"} <= set(found["metric"])
    last = found[(found["metric"] == "evaluations") & (found["step"] == 8)]["value"]
    assert set(last) == {8 * 16 * 2}


def test_seeds_of_tuning_are_apart_from_those_reported(rows):
    of_trials = rows[rows["parameter"].str.startswith("trial")]
    assert not set(of_trials["seed"]) & {0, 1, 2}


def test_estimators_share_weights_data_and_trials(rows):
    other = measured(replace(SMALL, estimator=("disarm",)))
    for found in (rows, other):
        assert (found["batch"] != "").all()
    keys = ["parameter", "seed"]
    columns = [*keys, "weights", "batch"]
    one, two = (f[columns].drop_duplicates().sort_values(keys).reset_index(drop=True) for f in (rows, other))
    pd.testing.assert_frame_equal(one, two)
    assert list(trials(rows)["learning_rate"]) == list(trials(other)["learning_rate"])


def test_a_single_rate_is_used_as_it_is():
    found = measured(replace(SMALL, learning_rate=(1e-2,)))
    assert set(found["parameter"]) == {""}
    assert set(found.loc[found["metric"] == "learning_rate", "value"]) == {1e-2}


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_what_was_done_before_a_kill_is_not_done_again(tmp_path, monkeypatch, calls):
    """Two groups of two trials, the runs, the untuned runs: killed in each of the later ones."""
    monkeypatch.setattr(tuning, "_AT_ONCE", 2)
    whole = measured()
    done = []

    def counting(train_planned, limit):
        def trained(planned, *args, **settings):
            if len(done) == limit:
                raise Killed
            done.append([one.seed for one in planned])
            return train_planned(planned, *args, **settings)

        return trained

    def run(limit):
        with monkeypatch.context() as watched:
            for module in (tuning, convergence_run):
                watched.setattr(module, "train_planned", counting(module.train_planned, limit))
            return measured(session=Session(tmp_path))

    with pytest.raises(Killed):
        run(calls)
    again = run(99)
    assert len(done) == 4
    pd.testing.assert_frame_equal(numbers(again), numbers(whole))


def test_parts_are_removed_when_the_run_has_ended(tmp_path):
    folder = RunFolder(tmp_path / "run", {"convergence": {}}, {})
    (case,) = SMALL.grid()
    folder.append(Convergence.execute(case, Session(folder.path)))
    assert list((folder.path / "partial").rglob("*.json"))
    folder.finish()
    assert not (folder.path / "partial").exists()


@pytest.mark.parametrize(("then", "kept"), [({"torch": "1"}, True), ({"torch": "2"}, False)])
def test_parts_of_another_version_are_not_gone_on_with(tmp_path, then, kept):
    """An estimator's file may have been mended between a kill and the same command again."""
    RunFolder(tmp_path, {"convergence": {}}, {"torch": "1"})
    Partial(tmp_path / "partial" / "case").keep("runs", lambda: [{"a": 1}])
    RunFolder(tmp_path, {"convergence": {}}, then)
    assert (tmp_path / "partial" / "case" / "runs.json").exists() == kept


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", "\x00"])
def test_a_damaged_part_is_computed_again(tmp_path, content):
    (tmp_path / "runs.json").write_text(content)
    assert Partial(tmp_path).keep("runs", lambda: [{"a": 1.5}]) == [{"a": 1.5}]
    assert Partial(tmp_path).keep("runs", lambda: pytest.fail("is kept")) == [{"a": 1.5}]


def test_models_are_kept_for_variance(tmp_path):
    found = measured(replace(SMALL, save=True, steps=8), Session(tmp_path))
    (folder,) = (tmp_path / "trained").iterdir()
    assert {one.name for one in folder.iterdir()} == {"seed-0", "seed-1", "seed-2"}
    assert steps_in(folder / "seed-1") == (0, 2, 4, 6, 8)
    problem = given_problem_at(PROBLEM, 8, folder / "seed-1")
    assert problem.encoder is not None
    kept = json.loads((folder / "seed-1" / "heldout.json").read_text())
    objective = found[
        (found["seed"] == 1)
        & (found["step"] == 8)
        & (found["metric"] == "heldout_objective")
        & (found["parameter"] == "")
    ]["value"]
    assert kept["8"] == pytest.approx(objective.iloc[0])


def test_where_every_trial_diverges_the_runs_are_told_of_too():
    asked = replace(
        SMALL,
        estimator=("reparameterization",),
        problem=("vae[latent_dim=2,hidden=8,validation=100]",),
        optimizer="sgd",
        learning_rate=(1e8, 1e9),
        tuning_steps=20,
        steps=20,
    )
    found = measured(asked)
    rate = found[(found["metric"] == "learning_rate") & (found["parameter"] == "")]
    assert "every trial diverged" in rate["reason"].iloc[0]
    assert (found[found["parameter"] == ""]["status"] == "diverged").any()


def test_a_rate_at_the_edge_is_told():
    found = measured(replace(SMALL, learning_rate=(1e-7, 1e-6)))
    reason = found[(found["metric"] == "learning_rate") & (found["parameter"] == "")]["reason"].iloc[0]
    assert ("edge of its range" in reason) == (
        found[found["metric"] == "learning_rate"]["value"].iloc[0] > 10**-6.1
        or found[found["metric"] == "learning_rate"]["value"].iloc[0] < 10**-6.9
    )


def test_progress_is_told_within_a_case():
    told = []
    measured(session=Session(tell=lambda text, share: told.append((text, share))))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.2
    assert 0.9 < shares[-1] <= 1
    assert any("trials from 1 on, of 4: step 4 of 4" in text for text, _ in told)


def test_no_seconds_where_machines_are_shared():
    found = measured(session=Session(timings=False))
    seconds = found[found["metric"] == "seconds"]
    assert (seconds["status"] == "skipped").all()
    assert seconds["value"].isna().all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"trials": 0}, "--trials must be at least 1, not 0"),
        ({"learning_rate": (1e-2, 1e-3)}, "--learning-rate takes one rate, or the range LOW,HIGH to tune in"),
        ({"learning_rate": (1e-3, 3e-3, 1e-2)}, "not 0.001,0.003,0.01"),
        ({"learning_rate": (0.0,)}, "--learning-rate must be positive, not 0.0"),
        ({"target": (float("nan"),)}, "--target must be a finite number of nats, not nan"),
        ({"optimizer": "adma"}, "unknown optimizer 'adma': choose from adam, sgd"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(bad, message):
    with pytest.raises(UsageError) as error:
        replace(SMALL, **bad).grid()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
