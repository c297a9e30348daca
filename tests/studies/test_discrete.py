"""The comparison for discrete latents: equal evaluations, what is said of bias, figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.benchmarks.rows.bias import DECLARED, judged
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.running.suite import Run, run
from elbograd.benchmarks.store import load_results
from elbograd.benchmarks.studies.discrete import figures
from elbograd.benchmarks.studies.discrete.cost import measure_costs
from elbograd.benchmarks.studies.discrete.evaluations import samples_for
from elbograd.benchmarks.studies.discrete.points import front, pays_until, points_of
from elbograd.benchmarks.studies.discrete.runs import BERNOULLI, COST, RUNS, AtEqualEvaluations
from elbograd.estimators import create
from elbograd.estimators.plugins.registry import BUILTIN_NAMES


@pytest.mark.parametrize(
    ("estimator", "evaluations", "samples"),
    [
        ("leave-one-out", 16, 16),
        ("leave-one-out", 1, None),  # needs two samples
        ("disarm", 5, 4),  # pairs
        ("muprop", 16, 15),  # one more, of the mean
        ("rebar", 16, 5),  # three each
        ("local-expectation", 16, 1),  # 1 + D each
        ("local-expectation", 8, None),
        ("local-expectation", 64, 7),
        ("reparameterization", 16, None),
    ],
)
def test_the_largest_number_of_samples_that_the_evaluations_allow(estimator, evaluations, samples):
    assert samples_for(BERNOULLI, estimator, evaluations) == samples


def test_every_estimator_for_discrete_latents_is_compared():
    compared = {e.partition("[")[0] for e in RUNS["discrete-training"].estimators()}
    problem = load_problem(BERNOULLI)
    x = first_batch(problem, 2, 0)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    usable = {name for name in BUILTIN_NAMES if create(name).supports(q, target, 4) is None}
    elbo = {name for name in usable if create(name).objective in ("elbo", "relaxed")}
    assert {"disarm", "gumbel-softmax"} <= elbo <= compared
    cases = RUNS["discrete-training"].grid()
    there = {c.estimator.partition("[")[0] for c in cases}
    assert elbo - there == {"exact", "optimal-baseline"}  # all states, and 64 pilots, are too many


def test_the_last_step_gets_every_number_of_evaluations_and_state_is_trained_for_one():
    cases = [c for c in RUNS["discrete-training"].grid() if c.problem == BERNOULLI]
    sizes = {(c.estimator, c.settings.step): [] for c in cases}
    for c in cases:
        sizes[c.estimator, c.settings.step].append(c.num_samples)
    assert sizes["leave-one-out", 0] == [16]
    assert sizes["leave-one-out", 3000] == [4, 16, 64]
    assert sizes["rebar", 3000] == sizes["rebar", 300] == [5]
    assert sizes["local-expectation", 3000] == [1, 7]
    assert len({c.id for c in cases}) == len(cases)
    assert {c.settings.steps for c in cases} == {(0, 300, 3000)}


def test_relaxed_latents_are_held_against_the_elbo_and_an_error_is_variance_and_squared_bias(tmp_path):
    asked = AtEqualEvaluations(
        problem=("small-vae[posterior=bernoulli]",), evaluations=(4,), step=(0,), replicates=200,
        batch_size=(3,), compared=("gumbel-softmax", "straight-through", "leave-one-out", "dreg"),
    )  # fmt: skip
    assert run(Run([asked], tmp_path / "run"))
    rows = load_results(tmp_path / "run")
    of = {name: one.set_index("metric")["value"] for name, one in rows.groupby("estimator")}
    assert set(of) == {"gumbel-softmax", "straight-through", "leave-one-out"}
    assert {name: v["unbiased"] for name, v in of.items()} == {
        "gumbel-softmax": 0, "straight-through": 0, "leave-one-out": 1,
    }  # fmt: skip
    soft = of["gumbel-softmax"]
    total = rows[(rows["metric"] == "variance") & (rows["parameter"].fillna("") == "")]
    variance = total.set_index("estimator")["value"]
    assert soft["mean_squared_error"] == pytest.approx(variance["gumbel-softmax"] + soft["squared_bias"])
    norm = soft["squared_bias"] ** 0.5 / soft["bias"]
    straight = of["straight-through"]
    assert straight["squared_bias"] ** 0.5 / straight["bias"] == pytest.approx(
        norm, rel=1e-3
    )  # the ELBO's, of both
    assert "mean_squared_error" not in of["leave-one-out"]
    verdicts = judged(rows).set_index("estimator")["bias_verdict"]
    assert verdicts["gumbel-softmax"] == verdicts["straight-through"] == DECLARED
    points = points_of(rows).set_index("estimator")
    assert points.loc["leave-one-out", "error"] == variance["leave-one-out"]
    assert points.loc["gumbel-softmax", "error"] == soft["mean_squared_error"]
    assert points["squared_norm"].nunique() == 1


def of_a_run(problems, settings, budget=16, step=0):
    """Rows of made-up measurements: name -> (variance, squared bias or None for an unbiased one)."""
    rows = []
    for problem, dimension in problems:
        for name, (variance, squared) in settings.items():
            common = {
                "case": f"{problem} {name}", "benchmark": "variance", "problem": problem, "estimator": name,
                "objective": "elbo", "num_samples": budget, "batch_size": 16, "latent_dim": dimension,
                "seed": 0, "step": step, "n": 1000,
            }  # fmt: skip
            values = {
                "variance": variance,
                "gradient_norm": 1.0,
                "evaluations": float(budget),
                "seconds": 1e-3,
            }
            values["unbiased"] = float(squared is None)
            if squared is not None:
                values |= {
                    "squared_bias": squared,
                    "mean_squared_error": variance + squared,
                    "bias": squared**0.5,
                }
            rows += [
                row(**common, metric=m, value=v, ci_low=0.9 * v, ci_high=1.1 * v) for m, v in values.items()
            ]
    return pd.DataFrame(rows)


MADE_UP = {
    "leave-one-out": (1.0, None),
    "disarm": (2.0, None),
    "straight-through": (0.2, 0.1),
    "gumbel-softmax": (3.0, 0.01),
}


def test_until_when_bias_pays():
    points = points_of(of_a_run([("bernoulli-vae", 8)], MADE_UP)).set_index("estimator", drop=False)
    assert (points["budget"] == 16).all()
    n = pays_until(points.loc["straight-through"], points.loc["leave-one-out"])
    assert n == pytest.approx((1.0 - 0.2) / 0.1)
    assert 0.1 + 0.2 / n == pytest.approx(1.0 / n)
    assert pays_until(points.loc["gumbel-softmax"], points.loc["leave-one-out"]) == 0
    assert list(front(points)["estimator"]) == ["straight-through"]
    assert list(front(points[~points["biased"]])["estimator"]) == ["leave-one-out"]


def test_times_are_those_of_the_run_made_for_them():
    rows, costs = of_a_run([("bernoulli-vae", 8)], MADE_UP), of_a_run([("bernoulli-vae", 8)], MADE_UP)
    costs["value"] = costs["value"].where(costs["metric"] != "seconds", 7e-3)
    assert (points_of(rows)["milliseconds"] == 1.0).all()
    assert points_of(rows, costs)["milliseconds"].tolist() == pytest.approx([7.0] * len(MADE_UP))
    assert {c.settings.step for c in RUNS[COST].grid()} == {0}


def test_processor_time_is_taken_of_every_case(tmp_path):
    few = AtEqualEvaluations(
        problem=(BERNOULLI,),
        evaluations=(4,),
        step=(0,),
        compared=("leave-one-out", "rebar", "gumbel-softmax"),
    )
    measure_costs(few, tmp_path / COST, turns=6)
    rows = load_results(tmp_path / COST / "rows.parquet")
    seconds = rows.set_index("estimator")["value"]
    assert set(seconds.index) == {"leave-one-out", "rebar", "gumbel-softmax"}
    assert 0 < seconds["leave-one-out"] < seconds["rebar"] < 1
    assert (rows["ci_low"] < rows["value"]).all()
    assert (tmp_path / COST / "environment.json").exists()


def test_figures_are_drawn_of_what_is_there():
    training = points_of(of_a_run([("bernoulli-vae", 8), ("categorical-vae[categories=4]", 4)], MADE_UP))
    for draw in (figures.error_vs_cost, figures.bias_vs_variance):
        figure = draw(training)
        assert figure.axes[0].get_title("left").startswith("Bernoulli, at the start")
        assert len(figure.axes) == 2
    assert figures.error_vs_temperature(training) is None
    assert figures.error_vs_size(training) is None
    tempered = {f"straight-through[temperature={t}]": (t, 1 / t) for t in (0.1, 1, 2)}
    warm = points_of(of_a_run([("bernoulli-vae", 8)], {**tempered, "disarm": (1.0, None)}, 4))
    assert len(figures.error_vs_temperature(warm).axes) == 3
    sizes = [("bernoulli-vae[latent_dim=2]", 2), ("bernoulli-vae[latent_dim=4]", 4)]
    sizes += [(f"categorical-vae[latent_dim=3,categories={k}]", 3) for k in (2, 4)]
    sized = points_of(of_a_run(sizes, MADE_UP, 64))
    assert sorted(set(sized["states"])) == [2, 4]
    assert len(figures.error_vs_size(sized).axes) == 4
    assert np.isfinite(sized["error"]).all()
