"""A dry run says what it knows of the time, and how."""

from __future__ import annotations

from dataclasses import replace

import pytest
from elbograd.benchmarks.cases import variance
from elbograd.benchmarks.cases.base import Case
from elbograd.benchmarks.cases.certify import Certify, CertifySettings
from elbograd.benchmarks.cases.convergence import Convergence, ConvergenceSettings
from elbograd.benchmarks.cases.throughput import Throughput, ThroughputSettings
from elbograd.benchmarks.cases.training.pilot import TrainingPilot
from elbograd.benchmarks.cases.variance import Variance, VariancePilot, VarianceSettings
from elbograd.benchmarks.running import dry_run, forecast
from elbograd.benchmarks.running.dry_run import print_plans
from elbograd.benchmarks.running.executors.choice import Engine
from elbograd.benchmarks.running.forecast import Guess, estimate_seconds
from elbograd.benchmarks.running.plan import Plan
from elbograd.benchmarks.store import ROWS, RunFolder

TRAINING = ConvergenceSettings(1000, 3, "adam", (0.01, 0.1), 8, 50)
MEASURING = VarianceSettings(replicates=1000, precision=None, route="factorized", step=0)


def case(kind=Variance, settings=MEASURING, estimator="score-function", num_samples=2, problem="quadratic"):
    return Case(kind, problem, estimator, num_samples, None, 0, "cpu", "float32", settings)


def test_a_pilot_scales_with_replicates_samples_and_precision():
    pilot = VariancePilot(case(), fixed=1.0, unit=0.01, relative_variance=4.0)
    timing = variance._COST
    assert pilot.seconds(case()) == pytest.approx(1 + 10 + timing)
    assert pilot.seconds(case(num_samples=6)) == pytest.approx(1 + 30 + timing)
    # 1.96 √(4/R) is 0.1 at R = 4 · 19.6²
    assert pilot.seconds(case(settings=replace(MEASURING, precision=0.1))) == pytest.approx(
        1 + 0.01 * 4 * 19.6**2 + timing
    )


def test_a_pilot_of_training_counts_seeds_and_tuning():
    pilot = TrainingPilot(case(Convergence, TRAINING), fixed=2.0, unit=0.01)
    # Three runs tuned and three untuned; trials are evaluated a quarter as often.
    expected = (3 + 3 + 8 / 4) * 2 + 0.01 * (2 * 3 * 1000 + 8 * 50)
    assert pilot.seconds(case(Convergence, TRAINING)) == pytest.approx(expected)
    alone = replace(TRAINING, learning_rates=(0.1,))
    assert pilot.seconds(case(Convergence, alone)) == pytest.approx(3 * 2 + 0.01 * 3000)


def test_pilots_are_run_and_what_breaks_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "PILOT_SECONDS", 120)  # enough on a busy machine
    (tmp_path / "broken.py").write_text(
        "from elbograd.estimators import Estimator\nclass Broken(Estimator):\n"
        "    def forward(self, q, target, num_samples):\n        raise RuntimeError('no')\n"
    )
    cases = [
        case(),
        case(Convergence, TRAINING),
        case(problem="linear-gaussian", estimator=str(tmp_path / "broken.py")),
        case(Certify, CertifySettings(0.99, 0.02, 20.0, 0.01)),
        case(Certify, CertifySettings(0.99, 0.02, None, 0.01)),
    ]
    found = estimate_seconds([(one.kind(), [one]) for one in cases], threads=1)
    assert set(found) == {cases[k].id for k in (0, 1, 3)}
    assert all(guess.seconds > 0 and guess.own for guess in found.values())
    assert found[cases[3].id].seconds == 20


def test_where_there_is_no_time_for_a_pilot_others_stand_in(monkeypatch):
    cases = [case(estimator=name) for name in ("score-function", "leave-one-out", "exact")]
    now = iter([0.0, 1.0, 2.0, 99.0])
    monkeypatch.setattr(forecast.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(
        Variance,
        "pilot",
        lambda given: VariancePilot(given, 1.0 if given.estimator == "score-function" else 3.0, 0.0, 0.0),
    )
    found = estimate_seconds([(Variance(), cases)], threads=1)
    assert [found[c.id].own for c in cases] == [True, True, False]
    assert found[cases[2].id].seconds == pytest.approx(2 + variance._COST)


def test_what_is_printed(monkeypatch, capsys, tmp_path):
    plan = [case(num_samples=s) for s in (1, 2, 3, 4, 5)]
    RunFolder(tmp_path / "run", {}, {}).append([plan[4].row(metric="variance", value=1.0)])
    times = {plan[0].id: Guess(10.2), plan[1].id: Guess(100.0), plan[2].id: Guess(20.0, own=False)}
    monkeypatch.setattr(dry_run, "estimate_seconds", lambda *_: dict(times))
    monkeypatch.setattr("elbograd.benchmarks.running.executors.choice.cores", lambda: 4)
    monkeypatch.setattr("elbograd.benchmarks.cases.bias._pilot", lambda *_: 3.0)
    timed = [case(Throughput, ThroughputSettings(mode)) for mode in ("eager", "compiled")]
    times |= estimate_seconds([(Throughput(seconds=3.0), timed)], threads=1)
    plans = [Plan(Variance(), plan, [(case(num_samples=9), "too many")])]
    plans += [Plan(Throughput(seconds=3.0), timed, [])]
    print_plans(plans, Engine(jobs=2), tmp_path / "run")
    name = "score-function, S={}, quadratic at step 0"
    assert capsys.readouterr().out.splitlines() == [
        f"variance: {name.format(1)}: about 10 s",
        f"variance: {name.format(2)}: about 2 min",
        f"variance: {name.format(3)}: about 20 s, if it is like the others",
        f"variance: {name.format(4)}: time unknown",
        f"variance: {name.format(5)}: done before",
        f"variance: {name.format(9)}: skipped, too many",
        "throughput: score-function, S=2, quadratic: about 6 s",
        "throughput: score-function, S=2, quadratic: time unknown",
        "variance: reference for the bias, quadratic at step 0: about 3 s, at most 2 min",
        "6 cases to run: about 2 min of measuring, 2 min with 2 at a time, about 3 s of references in each "
        "process, from quick pilots here; the time of 2 cases is unknown. Checkpoints are not counted.",
    ]
    with open(tmp_path / "run" / ROWS, "a") as file:
        file.write("a damaged line costs nothing but its own case\n")
    print_plans([Plan(Variance(), [plan[4]], [])], Engine(), tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[-1] == "0 cases to run"


def test_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forecast, "PILOT_SECONDS", 0)
    print_plans([Plan(Variance(), [case()], [])], Engine(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
