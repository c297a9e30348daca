"""Times to targets, tuning and profiles, from rows that were made up."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from elbograd.benchmarks.rows.budget import leaders
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.rows.targets import by_target, compared, reached
from elbograd.benchmarks.rows.training_curves import best_of_curves, profile_curves, reach_curves
from elbograd.benchmarks.rows.training_profiles import profiles
from elbograd.benchmarks.rows.tuning import best_of, trials
from elbograd.benchmarks.tables.cases import convergence_cases
from elbograd.benchmarks.tables.targets import target_cases, tuning_cases, typical

BUDGET = 100


def named(estimator, problem="p", **more):
    return {
        "case": f"{estimator}-{problem}",
        "benchmark": "convergence",
        "problem": problem,
        "estimator": estimator,
        "num_samples": 2,
        "batch_size": 8,
        "latent_dim": 2,
        **more,
    }


def curve(estimator, seed, values, problem="p", diverged=False, **more):
    """A run whose held-out objective is known every 50 steps; 3 evaluations and 0.1 seconds a step."""
    found = []
    for k, value in enumerate(values):
        last = diverged and k == len(values) - 1
        common = named(
            estimator, problem, seed=seed, step=50 * k, status="diverged" if last else "done", **more
        )
        found.append(row(**common, metric="heldout_objective", value=math.nan if last else value))
        found.append(row(**common, metric="evaluations", value=150.0 * k))
        found.append(row(**common, metric="seconds", value=5.0 * k))
    return found


def trial(estimator, number, begin, end, rate=1e-3, problem="p", diverged=False):
    common = named(
        estimator, problem, seed=1000 + number, parameter=f"trial {number}",
        parameters=json.dumps({"learning_rate": rate}),
    )  # fmt: skip
    return [
        row(**common, step=step, metric=metric, value=value, status=status)
        for metric in ("tuning_objective", "heldout_objective")
        for step, value, status in ((0, begin, "done"), (20, end, "diverged" if diverged else "done"))
    ]


def frame(*parts):
    return pd.DataFrame([r for part in parts for r in part])


FAST, SLOW = [-10.0, -2.0, -1.0], [-10.0, -6.0, -2.0]
TUNED = [*trial("a", 1, -10.0, -3.0), *trial("a", 2, -10.0, -2.0), *trial("b", 1, -10.0, -4.0)]


def rows_of_two():
    runs = [r for seed in range(4) for r in curve("a", seed, FAST) + curve("b", seed, SLOW)]
    return frame(TUNED, runs)


def test_targets_are_what_the_chosen_trials_reached():
    found = reached(rows_of_two())
    objectives = list(dict.fromkeys(one.target.objective for one in found))
    # a's best trial ended at -2, b's at -4
    assert objectives == pytest.approx([-3.5, -3.0, -2.0])
    assert [one.target.name for one in found[::2]] == ["lower quartile", "median", "best"]


def test_times_are_told_in_steps_evaluations_and_seconds():
    found = {(one.estimator, one.target.name): one for one in reached(rows_of_two())}
    best = found["a", "best"].times
    assert best["step"].times == (50.0,) * 4
    assert best["evaluations"].times == (150.0,) * 4
    assert best["seconds"].times == (5.0,) * 4
    assert best["evaluations"].budget == 300
    assert found["b", "best"].times["step"].times == (100.0,) * 4
    assert found["b", "median"].times["step"].median == pytest.approx(87.5)


def test_a_run_that_diverges_never_reaches_what_it_had_not():
    runs = [*curve("a", 0, FAST), *curve("a", 1, [-10.0, -6.0, 0.0], diverged=True), *curve("b", 0, SLOW)]
    found = {(one.estimator, one.target.name): one for one in reached(frame(TUNED, runs))}
    times = found["a", "best"].times["step"]
    assert times.times == (50.0, math.inf)
    assert times.budget == BUDGET
    assert times.reached == 1


def test_the_budget_is_what_was_asked_for():
    settings = json.dumps({"steps": 400})
    runs = [
        r for s in range(2) for r in curve("a", s, [-10.0, -9.0, -8.0], diverged=True, parameters=settings)
    ]
    found = reached(frame(TUNED, runs))[-1].times
    assert found["step"].budget == 400
    assert found["evaluations"].budget == 1200
    assert found["step"].restricted_mean == 400


def test_a_diverged_trial_counts_as_no_training():
    tried = trials(frame(trial("a", 1, -10.0, 5.0, diverged=True), trial("a", 2, -9.0, -3.0)))
    assert list(tried["tuning_objective"]) == [-10.0, -3.0]
    assert best_of(tried).value == pytest.approx([-6.5, -3.0])
    (line,) = tuning_cases(
        frame(trial("a", 1, -10.0, 5.0, diverged=True), trial("a", 2, -9.0, -3.0))
    ).to_dict("records")
    assert (line["trials"], line["lost"], line["best_all"]) == (2, 1, -3.0)


def test_named_targets_take_the_place_of_those_of_tuning():
    settings = json.dumps({"targets": [-5.0, 40.0]})
    runs = [r for seed in range(2) for r in curve("a", seed, FAST, parameters=settings)]
    found = target_cases(frame(TUNED, runs))
    assert list(found["target_objective"]) == [-5.0, 40.0]
    assert list(found["reached"]) == [2, 0]  # a target that nobody reaches is a result
    assert math.isinf(found["steps"].iloc[1])
    assert found["steps_mean"].iloc[1] == BUDGET
    assert list(typical(found)["target_objective"]) == [40.0]


def test_no_targets_without_tuning_or_names():
    assert reached(frame(curve("a", 0, FAST))) == []
    assert target_cases(frame(curve("a", 0, FAST))).empty
    assert trials(frame(curve("a", 0, FAST))).empty
    assert tuning_cases(pd.DataFrame()).empty


def test_comparisons_are_paired_by_seed():
    (group, *_) = by_target(reached(rows_of_two()))
    p_values = compared(group)
    assert math.isnan(p_values[0])
    assert p_values[1] == pytest.approx(2 / 2**4)
    fewer = frame(TUNED, curve("a", 0, FAST), curve("a", 1, FAST), curve("b", 5, SLOW), curve("b", 6, SLOW))
    (group, *_) = by_target(reached(fewer))
    assert all(math.isnan(p) for p in compared(group))


def test_profiles_by_hand():
    other = [r for seed in range(4) for r in curve("a", seed, SLOW, "q") + curve("b", seed, FAST, "q")]
    tuned = [*trial("a", 1, -10.0, -2.0, problem="q"), *trial("b", 1, -10.0, -2.0, problem="q")]
    found = {
        one.estimator: one for one in profiles(reached(frame(rows_of_two().to_dict("records"), tuned, other)))
    }
    # On p three targets where a leads; on q both trials ended at the same, one target, where b leads.
    assert found["a"].share[0] == pytest.approx(3 / 4)
    assert found["b"].share[0] == pytest.approx(1 / 4)
    assert found["a"].share[-1] == found["b"].share[-1] == 1
    for one in found.values():
        assert (one.low <= one.share + 1e-12).all()
        assert (one.share <= one.high + 1e-12).all()


def test_a_profile_needs_two_estimators_and_two_instances():
    assert profiles(reached(frame(TUNED[:8], [r for s in range(3) for r in curve("a", s, FAST)]))) == []
    assert profile_curves(pd.DataFrame()).empty


def test_curves_have_a_label_and_a_band():
    found = best_of_curves(rows_of_two())
    assert set(found["label"]) == {"a"}  # b has one trial
    assert (found["low"] <= found["y"]).all()
    reach = reach_curves(rows_of_two())
    assert reach.groupby(["label", "target"])["y"].max().eq(1).all()
    assert set(reach["x"]) >= {0.0, 50.0, 100.0}


def test_the_ranking_by_budget_is_told():
    early = [r for s in range(2) for r in curve("c", s, [-10.0, -1.5, -1.4, -1.3, -1.2])]
    late = [r for s in range(2) for r in curve("d", s, [-10.0, -5.0, -4.0, -1.25, -1.0])]
    tuned = [*trial("c", 1, -9.0, -8.0), *trial("c", 2, -9.0, -2.0), *trial("d", 1, -9.0, -3.0), *trial("d", 2, -9.0, -4.0)]  # fmt: skip
    (found,) = leaders(frame(early, late, tuned))
    assert (found.early, found.late) == ("c", "d")
    assert (found.one_trial, found.all_trials, found.trials) == ("d", "c", 2)
    assert found.sentence == (
        "On p · S = 2, with one trial of tuning d is expected ahead, with 2 c; c leads after a quarter of the "
        "steps, d at the end."
    )
    assert leaders(frame(curve("a", 0, FAST))) == []
    (alone,) = leaders(rows_of_two())
    assert alone.sentence == "On p · S = 2, a leads whatever the budget."


def test_the_table_of_training_has_the_untuned_runs():
    untuned = [{**r, "parameter": "untuned"} for r in curve("a", 0, SLOW) + curve("a", 1, SLOW)]
    table = convergence_cases(frame(rows_of_two().to_dict("records"), untuned)).set_index("estimator")
    assert table.loc["a", "untuned_objective"] == -2.0
    assert table.loc["a", "heldout_objective"] == -1.0
    assert math.isnan(table.loc["b", "untuned_objective"])
    assert table.loc["a", "seeds"] == 4
