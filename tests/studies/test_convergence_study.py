"""The study of convergence: its conclusions from rows that were made up, and a quick look at the whole."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks import load_results
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.store.table import write_table
from elbograd.benchmarks.studies.convergence.__main__ import main as study
from elbograd.benchmarks.studies.convergence.conclusions import (
    at_equal_evaluations,
    biased_against_unbiased,
    in_two_workloads,
    rank_correlation,
)
from elbograd.benchmarks.studies.convergence.page import page
from elbograd.benchmarks.studies.convergence.publish import main as publish
from elbograd.benchmarks.studies.convergence.workloads import WORKLOADS
from elbograd.benchmarks.training.trials import planned_trials
from elbograd.estimators import UsageError, create
from scipy import stats

UNBIASED = ("leave-one-out", "disarm", "arm", "rebar", "relax")


def training(estimator, seed, speed, samples=2):
    """A run that comes to -2 after some steps, and ends 0.001 × speed below -1."""
    found = []
    for k, step in enumerate((0, 50, 100, 150, 200)):
        value = -10 + 8 * min(step / speed, 1) + (1 - 0.001 * speed if k == 4 else 0)
        common = {
            "case": f"{estimator}-{samples}", "benchmark": "convergence", "problem": "p",
            "estimator": estimator, "num_samples": samples, "seed": seed, "step": step,
        }  # fmt: skip
        found.append(row(**common, metric="heldout_objective", value=value))
        found.append(row(**common, metric="evaluations", value=float(step * 8 * samples)))
    return found


def trial(estimator, end):
    common = {
        "case": f"{estimator}-2", "benchmark": "convergence", "problem": "p", "estimator": estimator,
        "num_samples": 2, "seed": 99, "parameter": "trial 1", "parameters": json.dumps({"learning_rate": 0.01}),
    }  # fmt: skip
    return [
        row(**common, step=step, metric=metric, value=value)
        for metric in ("tuning_objective", "heldout_objective")
        for step, value in ((0, -10.0), (20, end))
    ]


def variance(estimator, value):
    return row(
        case=f"v-{estimator}", benchmark="variance", problem="p", estimator=estimator, num_samples=2, seed=0,
        step=500, metric="variance", value=value,
    )  # fmt: skip


def made_up(speeds, variances):
    rows = []
    for name, speed in speeds.items():
        rows += trial(name, -2.5)
        for seed in range(6):
            rows += training(name, seed, speed + seed)
    rows += [variance(name, value) for name, value in variances.items()]
    return pd.DataFrame(rows)


SPEEDS = dict(zip(UNBIASED, (60, 80, 100, 120, 140), strict=True))


@pytest.mark.parametrize(("variances", "sign"), [((1, 2, 3, 4, 5), 1), ((5, 4, 3, 2, 1), -1)])
def test_the_rank_correlation_is_spearmans(variances, sign):
    found = rank_correlation(made_up(SPEEDS, dict(zip(UNBIASED, variances, strict=True))))
    assert found.value == pytest.approx(sign)
    assert found.low <= found.value <= found.high
    assert found.estimators == 5
    mixed = dict(zip(UNBIASED, (1, 3, 2, 5, 4), strict=True))
    expected = stats.spearmanr([1, 3, 2, 5, 4], [1, 2, 3, 4, 5]).statistic
    assert rank_correlation(made_up(SPEEDS, mixed)).value == pytest.approx(expected)


def test_few_estimators_or_biased_ones_have_no_rank_correlation():
    few = dict(list(SPEEDS.items())[:3])
    assert rank_correlation(made_up(few, dict.fromkeys(few, 1.0))) is None
    biased = {**few, "straight-through": 90, "gumbel-softmax": 95}
    assert rank_correlation(made_up(biased, dict.fromkeys(biased, 1.0))) is None
    assert rank_correlation(made_up(SPEEDS, {})) is None


def test_biased_estimators_are_held_against_the_best_unbiased_one():
    rows = made_up({"leave-one-out": 60, "disarm": 80, "straight-through": 70}, {})
    (found,) = biased_against_unbiased(rows)
    assert (found.one, found.other) == ("straight-through", "leave-one-out")
    assert found.value == pytest.approx(-0.01)
    assert found.low <= found.value <= found.high
    assert found.p_value == pytest.approx(2 / 2**6)


def test_samples_are_compared_at_equal_evaluations():
    rows = pd.DataFrame(
        [r for s in (2, 4) for seed in range(3) for r in training("leave-one-out", seed, 150, samples=s)]
    )
    table = at_equal_evaluations(rows).set_index("num_samples")
    assert set(table["evaluations"]) == {200 * 8 * 2}
    # Twice the samples have had half of the steps.
    assert table.loc[4, "objective"] == pytest.approx(-10 + 8 * 100 / 150)
    assert table.loc[2, "objective"] == pytest.approx(-10 + 8 + 1 - 0.15)
    assert list(table["seeds"]) == [3, 3]


def test_the_page_says_what_the_rows_support():
    text = page({"made-up": made_up(SPEEDS, dict(zip(UNBIASED, (1, 2, 3, 4, 5), strict=True)))})
    assert "## made-up" in text
    assert "rank correlation" in text
    assert "over 5 unbiased estimators" in text
    assert "| `leave-one-out` | 2 |" in text
    assert "nan" not in text


def test_every_workload_names_estimators_and_problems_that_exist():
    assert len({one.name for one in WORKLOADS}) == len(WORKLOADS)
    for workload in WORKLOADS:
        for estimator in workload.estimators:
            create(estimator)
        variances, training_ = workload.asked(quick=False)
        assert {case.estimator for case in training_.grid()} == set(workload.estimators)
        assert {case.step for case in variances.grid()} == {500}
        of = [
            [(c.estimator, c.problem, c.num_samples) for c in part.grid()] for part in (variances, training_)
        ]
        assert sorted(of[0]) == sorted(of[1])
        rates = {
            tuple(t.learning_rate for t in planned_trials(name, 20, workload.learning_rates, 0))
            for name in workload.estimators
        }
        assert len(rates) == 1


def test_conclusions_of_nothing_are_nothing():
    empty = pd.DataFrame()
    assert rank_correlation(empty) is None
    assert biased_against_unbiased(empty) == []
    assert at_equal_evaluations(empty).empty


def test_a_run_that_diverged_is_no_end():
    rows = made_up({"leave-one-out": 60, "straight-through": 70}, {})
    last = (rows["estimator"] == "straight-through") & (rows["seed"] == 0) & (rows["step"] == 200)
    rows.loc[last, ["status", "value"]] = ["diverged", math.nan]
    (found,) = biased_against_unbiased(rows)
    assert np.isfinite(found.value)
    assert found.p_value == pytest.approx(2 / 2**5)


def test_optimizers_are_compared_estimator_by_estimator():
    adam, sgd = (
        made_up({"leave-one-out": 60, "disarm": 80}, {}),
        made_up({"leave-one-out": 70, "arm": 80}, {}),
    )
    (found,) = in_two_workloads(sgd, adam)
    assert found.other == "leave-one-out"
    assert found.value == pytest.approx(-0.01)
    text = page({"bernoulli-digits": adam, "bernoulli-sgd": sgd})
    assert "less that of the same seeds in bernoulli-digits:\n\n- `leave-one-out`: -0.01" in text


def test_a_study_is_published_with_its_figures(tmp_path, capsys):
    rows = made_up(SPEEDS, dict(zip(UNBIASED, (1, 2, 3, 4, 5), strict=True)))
    for name in ("bernoulli-digits", "bernoulli-mnist-5k", "bernoulli-sgd"):
        folder = tmp_path / "study" / name
        (folder / "figures").mkdir(parents=True)
        write_table(rows.assign(problem=name).to_dict("records"), folder / "rows.parquet")
        (folder / "figures" / "convergence.png").write_bytes(b"a figure")
    (tmp_path / "study" / "gaussian-digits").mkdir()  # not finished
    published = tmp_path / "published"
    assert publish([str(tmp_path / "study"), "-o", str(published)]) == 0
    text = (published / "convergence.md").read_text(encoding="utf-8")
    images = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert images[0] == "figures/training-profile-bernoulli.png"
    assert len(images) == 4
    assert all((published / image).exists() for image in images)
    assert len(load_results(published / "bernoulli-sgd")) == len(rows)
    assert publish([str(tmp_path / "nothing")]) == 2
    assert "has no finished workload of the study" in capsys.readouterr().err


def test_a_workload_that_cannot_be_run_here_is_left_out(tmp_path, monkeypatch, capsys):
    ran = []

    def run(asked):
        if "fashion" in asked.output.name:
            raise UsageError("no folder of images")
        ran.append(asked.output.name)
        return True

    monkeypatch.setattr("elbograd.benchmarks.studies.convergence.__main__.run", run)
    chosen = ["-o", str(tmp_path), "--only", "bernoulli-fashion"]
    assert study([*chosen, "--only", "gaussian-digits"]) == 0
    assert ran == ["gaussian-digits"]
    assert "bernoulli-fashion: left out: no folder of images\n" in capsys.readouterr().err
    assert study(chosen) == 2
    assert study(["--only", "mnist"]) == 2
