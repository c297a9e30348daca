"""Wrong estimators are marked, counted and not ranked; right ones, however noisy, are not.

A run marks a right estimator with probability 1% at most; all seeds are fixed.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from elbograd.benchmarks import load_results, measure_variance
from elbograd.benchmarks.cases.variance import Variance
from elbograd.benchmarks.oracles import references
from elbograd.benchmarks.oracles.bias import SCREEN_LEVEL, bias_rows, measure_bias, two_looks
from elbograd.benchmarks.oracles.clock import Clock, TookTooLong
from elbograd.benchmarks.oracles.references import length_for, reference_gradient, whole_reference
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.benchmarks.report.runs import load_runs
from elbograd.benchmarks.report.verdict import verdict
from elbograd.benchmarks.rows.bias import judged, rejected
from elbograd.benchmarks.rows.rankings import cost_points
from elbograd.benchmarks.rows.schema import row

WRONG = Path(__file__).parents[1] / "helpers" / "wrong_estimators.py"
GAUSSIAN = "linear-gaussian[latent_dim=2,data_dim=3]"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])


@pytest.fixture(scope="module")
def setting():
    problem = load_problem(GAUSSIAN)
    x = first_batch(problem, 8, 0)
    return problem, x, reference_gradient(problem, x)


def test_a_run_with_wrong_estimators_fails_marks_and_counts_them(elbograd):
    names = ("SquaredScale", "NoKl")
    given = [part for name in names for part in ("-e", f"{WRONG}:{name}")]
    command = (
        "variance",
        "-p",
        GAUSSIAN,
        "-e",
        "reparameterization",
        "-e",
        "score-function",
        *given,
        "-s",
        2,
    )
    status, out, error = elbograd(*command, "-r", 400, "--batch-size", 8, "-o", "run")
    assert status == 1, error
    said = " ".join(out.split())
    assert "2 of 4 estimators differ from the true gradient and are not ranked" in said
    assert len(re.findall(r"✗ \d+% \[\d+, \d+\]", out)) == 2
    rows = load_results("run")
    of = judged(rows).set_index("estimator")["bias_verdict"]
    assert {name.rpartition(":")[2]: v for name, v in of.items()} == {
        "reparameterization": "no difference", "score-function": "no difference",
        "SquaredScale": "wrong", "NoKl": "wrong",
    }  # fmt: skip
    points, _ = cost_points(rows)
    assert set(points["estimator"]) == {"reparameterization", "score-function"}
    sentences = " ".join(verdict(load_runs([Path("run")])).sentences)
    assert "reparameterization" in sentences.partition("2 of 4")[0] and "2 of 4 estimators" in sentences
    # A finished run says so again, and so does its report, which is no check.
    assert elbograd(*command, "-r", 400, "--batch-size", 8, "-o", "run")[0] == 1
    status, out, _ = elbograd("report", "run")
    assert status == 0 and "2 of 4 estimators differ" in " ".join(out.split())
    _, out, _ = elbograd("compare", "run", "run")
    assert "after: 2 of 4 estimators differ" in " ".join(out.split())


@pytest.mark.parametrize("route", ["factorized", "full"])
def test_right_estimators_pass_and_wrong_ones_fail_on_both_routes(elbograd, route):
    common = ("variance", "-p", GAUSSIAN, "--batch-size", 4, "--route", route, "-r", 300, "-s", 2)
    assert elbograd(*common, "-e", "score-function", "-o", "right")[0] == 0
    assert elbograd(*common, "-e", f"{WRONG}:NegativeKl", "-o", "wrong")[0] == 1
    assert judged(load_results("right"))["bias_verdict"].tolist() == ["no difference"]


def test_a_declared_bias_is_no_failure_and_is_not_recommended(elbograd, tmp_path):
    (tmp_path / "half.py").write_text(
        "from elbograd.estimators.methods.reparameterization import Reparameterization\n"
        "class Half(Reparameterization):\n"
        "    unbiased = False\n"
        "    def forward(self, q, target, num_samples):\n"
        "        found = super().forward(q, target, num_samples)\n"
        "        return found._replace(surrogate=0.5 * found.surrogate)\n"
    )
    common = ("variance", "-p", GAUSSIAN, "--batch-size", 8, "-r", 300, "-s", 2, "-e", "reparameterization")
    status, out, error = elbograd(*common, "-e", "half.py", "-o", "run")
    assert status == 0, error
    assert "biased, as it declares: 5" in " ".join(out.split())
    assert judged(load_results("run")).set_index("estimator")["bias_verdict"]["half.py"] == "declared"
    assert "half.py" not in verdict(load_runs([Path("run")])).sentences[0]


def test_without_a_bias_nothing_is_judged_and_the_table_says_so(elbograd):
    command = ("variance", "-p", GAUSSIAN, "--batch-size", 4, "-r", 50, "-s", 2, "-e", f"{WRONG}:NoKl")
    status, out, error = elbograd(*command, "--no-bias", "-o", "run")
    assert status == 0, error
    assert "not checked" in out
    assert not set(load_results("run")["metric"]) & {"bias", "bias_bound", "bias_p_value"}


def test_options_that_are_not_given_leave_the_ids_as_they_were():
    def ids(**options):
        return [
            case.id for case in Variance(estimator=("exact",), step=(0,), latent_dim=(), **options).grid()
        ]

    assert ids() == ids(bias_seconds=120.0)
    assert not set(ids()) & set(ids(no_bias=True)) and not set(ids()) & set(ids(bias_seconds=5.0))
    assert "bias" not in Variance(estimator=("exact",)).grid()[0].as_json()["settings"]


# --- Two looks ---


class _Looks:
    def __init__(self, problem, x, estimator):
        self.problem, self.x, self.estimator, self.draws = problem, x, estimator, []

    def __call__(self, replicates):
        self.draws.append(replicates)
        return measure_variance(self.problem, self.estimator, self.x, replicates=replicates, seed=99)


def test_an_alarm_that_fresh_draws_do_not_confirm_convicts_nobody(setting):
    problem, x, reference = setting
    # The first look is of a wrong estimator, the second of a right one: an alarm by chance.
    v = measure_variance(problem, f"{WRONG}:NoKl", x, replicates=2000)
    bias = measure_bias(problem, x, v, reference)
    assert bias.p_value < SCREEN_LEVEL
    again = _Looks(problem, x, "reparameterization")
    assert two_looks(problem, x, v, reference, bias, again, lambda: reference) == (1.0, "")
    again = _Looks(problem, x, f"{WRONG}:NoKl")
    p_value, why = two_looks(problem, x, v, reference, bias, again, lambda: reference)
    assert p_value < 1e-5 and why == ""
    assert again.draws[0] >= 2000


def test_no_second_look_is_taken_without_an_alarm(setting):
    problem, x, reference = setting
    v = measure_variance(problem, "score-function", x, replicates=500)
    again = _Looks(problem, x, "score-function")
    rows = bias_rows(problem, x, v, reference, True, again, lambda: reference)
    assert [r["metric"] for r in rows] == ["bias", "bias_bound", "bias_p_value", "unbiased"]
    assert again.draws == [] and rows[2]["value"] > 0.01


def test_holm_marks_by_the_whole_family():
    assert rejected(pd.Series([0.004, np.nan])).tolist() == [True, False]
    assert not rejected(pd.Series([0.004] * 20)).any()
    assert rejected(pd.Series([1e-9] + [0.5] * 99)).tolist() == [True] + [False] * 99


def test_rows_without_p_values_convict_nobody():
    common = {"case": "a", "benchmark": "variance", "problem": "p", "estimator": "e", "num_samples": 1}
    rows = pd.DataFrame(
        [row(**common, metric="variance", value=1.0), row(**common, metric="bias_bound", value=9.0)]
    )
    assert judged(rows)["bias_verdict"].tolist() == ["no difference"]
    assert judged(rows[:1])["bias_verdict"].tolist() == ["not checked"]


# --- A reference holds up no measurement ---


def test_the_length_of_a_long_run_follows_from_counts():
    assert [length_for(r) for r in (2, 100, 1000, 4000, 10**9)] == [512, 512, 4000, 16_000, 16_384]


def test_a_reference_that_takes_too_long_is_a_reason(elbograd):
    command = ("variance", "-p", "vae[latent_dim=4,hidden=8]", "--batch-size", 4, "-r", 50)
    status, _, error = elbograd(*command, "-e", "leave-one-out", "-s", 2, "--bias-seconds", 1e-9, "-o", "run")
    assert status == 0, error
    rows = load_results("run").set_index("metric")
    assert rows.loc["bias", "reason"].endswith("it takes longer than 1e-09 s (--bias-seconds gives it more)")
    assert np.isfinite(rows.loc["variance", "value"]).all()
    status, _, error = elbograd(*command, "-e", "leave-one-out", "--bias-seconds", 0)
    assert status == 2 and "--bias-seconds must be a positive number of seconds, not 0.0" in error


def test_the_clock_gives_up_early_what_cannot_be_done_in_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("elbograd.benchmarks.oracles.clock.time.monotonic", lambda: now[0])
    told = []
    clock = Clock(100.0, lambda text, share: told.append((text, share)), "a reference")
    now[0] = 30.0
    clock.check(0.2)  # 150 s in all: it may yet do
    with pytest.raises(TookTooLong):
        clock.check(0.1)
    now[0] = 101.0
    with pytest.raises(TookTooLong, match="takes longer than 100 s"):
        clock.check()
    assert told[0] == ("a reference", 0.2)


class _Breaks:
    """A problem that does what a measurement never asks for badly."""

    def __init__(self, problem, error):
        self.__dict__.update(vars(problem))
        self._problem, self._error = problem, error

    def __deepcopy__(self, memo):
        raise self._error

    def posterior(self, eta):
        if eta.dtype == torch.float64:
            raise self._error
        return self._problem.posterior(eta)

    def target(self, x):
        return self._problem.target(x)

    def batches(self, split, batch_size, generator):
        return self._problem.batches(split, batch_size, generator)


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), RuntimeError("float64 is not supported"), TypeError("no")]
)
def test_a_model_for_float32_alone_has_a_long_run(error):
    problem = load_problem("vae[latent_dim=4,hidden=8]")
    x = first_batch(problem, 4, 0)
    reference = reference_gradient(_Breaks(problem, error), x, length=512)
    assert not isinstance(reference, str) and reference.kind.startswith("long run of reparameterization")


@pytest.mark.parametrize("find", [reference_gradient, whole_reference])
def test_an_interrupt_is_not_swallowed(monkeypatch, find):
    problem = load_problem("vae[latent_dim=4,hidden=8]")

    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(references, "exact_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(problem, first_batch(problem, 4, 0))


def test_whole_gradients_stand_in_where_eta_is_not_all(monkeypatch):
    problem = load_problem("vae[latent_dim=4,hidden=8]")
    x = first_batch(problem, 4, 0)
    monkeypatch.setattr(references, "only_through_eta", lambda *_: False)
    monkeypatch.setattr(references, "_SHORT_RUN", 64)
    reference = whole_reference(problem, x)
    assert reference.kind == "long run of reparameterization (128 whole gradients)"
    v = measure_variance(problem, "leave-one-out", x, num_samples=4, replicates=100, route="full")
    assert measure_bias(problem, x, v, reference).p_value > 1e-4
