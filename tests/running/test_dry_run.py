"""A dry run says what it knows of the time, and how."""

from __future__ import annotations

import pytest
from elbograd.benchmarks.cases.grid import Case
from elbograd.benchmarks.cases.options import Throughput, Variance
from elbograd.benchmarks.running import dry_run
from elbograd.benchmarks.running import forecast as estimate
from elbograd.benchmarks.running.dry_run import print_plans
from elbograd.benchmarks.running.executors.choice import Engine
from elbograd.benchmarks.running.forecast import Guess, Pilot, estimate_seconds
from elbograd.benchmarks.running.plan import Plan
from elbograd.benchmarks.store import ROWS, RunFolder

TRAINING = {"steps": 1000, "seeds": 3, "optimizer": "adam", "learning_rates": [0.1, 0.01], "tuning_steps": 50}


def case(benchmark="variance", estimator="score-function", num_samples=2, problem="quadratic", **settings):
    given = {"replicates": 1000, "precision": None, "route": "factorized", "step": 0, **settings}
    return Case(benchmark, problem, estimator, num_samples, None, 0, "cpu", "float32", given)


def test_a_pilot_scales_with_replicates_samples_and_precision():
    pilot = Pilot(case(), fixed=1.0, unit=0.01, relative_variance=4.0)
    timing = estimate._COST
    assert pilot.seconds(case()) == pytest.approx(1 + 10 + timing)
    assert pilot.seconds(case(num_samples=6)) == pytest.approx(1 + 30 + timing)
    # 1.96 √(4/R) is 0.1 at R = 4 · 19.6²
    assert pilot.seconds(case(precision=0.1)) == pytest.approx(1 + 0.01 * 4 * 19.6**2 + timing)


def test_a_pilot_of_training_counts_seeds_and_tuning():
    pilot = Pilot(case("convergence"), fixed=2.0, unit=0.01)
    assert pilot.seconds(case("convergence", **TRAINING)) == pytest.approx(5 * 2 + 0.01 * (3 * 1000 + 2 * 50))
    alone = {**TRAINING, "learning_rates": [0.1]}
    assert pilot.seconds(case("convergence", **alone)) == pytest.approx(3 * 2 + 0.01 * 3000)


def test_pilots_are_run_and_what_breaks_is_unknown(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from elbograd.estimators import Estimator\nclass Broken(Estimator):\n"
        "    def forward(self, q, target, num_samples):\n        raise RuntimeError('no')\n"
    )
    cases = [
        case(),
        case("convergence", **TRAINING),
        case(problem="linear-gaussian", estimator=str(tmp_path / "broken.py")),
        case("certify", seconds=20.0),
        case("certify", seconds=None),
    ]
    found = estimate_seconds(cases, threads=1)
    assert set(found) == {cases[k].id for k in (0, 1, 3)}
    assert all(guess.seconds > 0 and guess.own for guess in found.values())
    assert found[cases[3].id].seconds == 20


def test_where_there_is_no_time_for_a_pilot_others_stand_in(monkeypatch):
    cases = [case(estimator=name) for name in ("score-function", "leave-one-out", "exact")]
    now = iter([0.0, 1.0, 2.0, 99.0])
    monkeypatch.setattr(estimate.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(
        estimate, "_pilot", lambda given: Pilot(given, 1.0 if given is cases[0] else 3.0, 0.0)
    )
    found = estimate_seconds(cases, threads=1)
    assert [found[c.id].own for c in cases] == [True, True, False]
    assert found[cases[2].id].seconds == pytest.approx(2 + estimate._COST)


def test_what_is_printed(monkeypatch, capsys, tmp_path):
    plan = [case(num_samples=s) for s in (1, 2, 3, 4, 5)]
    RunFolder(tmp_path / "run", {}, {}).append([plan[4].row(metric="variance", value=1.0)])
    times = {plan[0].id: Guess(10.2), plan[1].id: Guess(100.0), plan[2].id: Guess(20.0, own=False)}
    monkeypatch.setattr(dry_run, "estimate_seconds", lambda *_: dict(times))
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    timed = [Plan([case("throughput", mode=mode)], []) for mode in ("eager", "compiled")]
    plans = [(Variance(), Plan(plan, [(case(num_samples=9), "too many")]))]
    plans += [(Throughput(seconds=3.0), plan) for plan in timed]
    print_plans(plans, Engine(jobs=2), tmp_path / "run")
    name = "score-function, S={}, quadratic at step 0"
    assert capsys.readouterr().out.splitlines() == [
        f"variance: {name.format(1)}: about 10 s",
        f"variance: {name.format(2)}: about 2 min",
        f"variance: {name.format(3)}: about 20 s, if it is like the others",
        f"variance: {name.format(4)}: time unknown",
        f"variance: {name.format(5)}: done before",
        f"variance: {name.format(9)}: skipped, too many",
        f"throughput: {name.format(2)}: about 6 s",
        f"throughput: {name.format(2)}: time unknown",
        "6 cases to run: about 2 min of measuring, 2 min with 2 at a time, from quick pilots here; "
        "the time of 2 cases is unknown. Checkpoints and references are not counted.",
    ]
    with open(tmp_path / "run" / ROWS, "a") as file:
        file.write("a damaged line costs nothing but its own case\n")
    print_plans([(Variance(), Plan([plan[4]], []))], Engine(), tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[-1] == "0 cases to run"


def test_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "PILOT_SECONDS", 0)
    print_plans([(Variance(), Plan([case()], []))], Engine(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
