"""The study of false alarms: whole runs that are kept, gone on with and summed up."""

from __future__ import annotations

import json

import pytest
from elbograd.benchmarks.cases.certify import Certify
from elbograd.benchmarks.certification.oracle_problems import ORACLE_PROBLEMS
from elbograd.benchmarks.rows.certificate import Certificate
from elbograd.benchmarks.rows.certificate_checks import BiasBound, Check
from elbograd.benchmarks.studies.false_alarms import WholeRun, main, page, summary

PROBLEM = "small-vae[posterior=bernoulli]"


def whole_run(run=0, **changes):
    given = {"verdict": "holds", "checks": 100, "open": 0, "alarms": (), "bound": 0.002, "worst": PROBLEM}
    return WholeRun(run=run, seed=run, estimator="arm", seconds=1.0, **{**given, **changes})


def test_rates_have_the_intervals_of_clopper_and_pearson():
    runs = [whole_run(k) for k in range(199)] + [whole_run(199, verdict="fails", alarms=("value: wrong",))]
    # Of none in n the upper end is 1 − 0.025^(1/n); of 1 in 200 the interval is a published one.
    assert "1 of 200 whole runs raised an alarm (0.005 [0.00013, 0.028] a run" in summary(runs)
    assert "1 of 20,000 checks (5e-05 [1.3e-06, 0.00028] a check)" in summary(runs)
    assert "0 of 199 whole runs raised an alarm (0 [0, 0.018] a run" in summary(runs[:199])
    assert "- run 199, `arm`: value: wrong" in page(runs)
    assert "| `arm` | 200 | 1 | 199 | 0 | 100 | 0.2% | 1 |" in page(runs)


@pytest.fixture
def certified(monkeypatch):
    """Cases that have been certified, each at once: the bias holds, but that of a wrong one."""
    seen = []

    def execute(case, session):
        seen.append((case.estimator, case.problem, case.seed))
        wrong = "DoubledKl" in case.estimator and case.problem == PROBLEM
        bias = BiasBound(0.0, 0.0, 0.002, 0.01)
        checks = [Check("finite[gaussian]", True)]
        if case.problem:
            place = {"problem": case.problem, "point": "initial", "num_samples": 1, "batch_size": 3}
            checks = [Check("gradient", not wrong, "off" if wrong else "", bias=bias, seconds=2.0, **place)]
        found = Certificate(case.estimator, "elbo", True, tuple(checks), 0.99, 0.003, 1e-3)
        return case.complete(found.rows())

    monkeypatch.setattr(Certify, "execute", execute)
    monkeypatch.setattr("os.nice", lambda by: None)  # of the other tests
    return seen


def test_runs_are_kept_and_gone_on_with(tmp_path, capsys, certified):
    command = ["-e", "arm", "-e", "local-expectation", "-o", str(tmp_path)]
    assert main(["-r", "1", *command]) == 0
    assert [problem for _, problem, _ in certified] == ["", *ORACLE_PROBLEMS]
    file = tmp_path / "runs.jsonl"
    first = file.read_text(encoding="utf-8")
    file.write_text(first + '{"run": 1, "se', encoding="utf-8")  # killed while it was writing
    assert main(["-r", "3", *command]) == 0
    assert file.read_text(encoding="utf-8").startswith(first)
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [one["estimator"] for one in runs] == ["arm", "local-expectation", "arm"]
    assert len({one["seed"] for one in runs}) == 3
    assert {(one["verdict"], one["checks"], one["bound"], one["seconds"]) for one in runs} == {
        ("holds", 1 + len(ORACLE_PROBLEMS), 0.002, 2.0 * len(ORACLE_PROBLEMS))
    }
    assert "0 of 3 whole runs raised an alarm" in capsys.readouterr().out
    assert "| `arm` | 2 | 0 | 2 |" in (tmp_path / "false-alarms.md").read_text(encoding="utf-8")
    before = len(certified)
    assert main(["-r", "3", *command]) == 0  # nothing is left to do
    assert len(certified) == before
    assert main(["-r", "1", "--offset", "5", *command]) == 0
    assert certified[-1][0] == "local-expectation"


def test_a_wrong_estimator_raises_an_alarm(tmp_path, capsys, certified):
    wrong = "tests/helpers/wrong_estimators.py:DoubledKl"
    assert main(["-r", "1", "-e", wrong, "-p", "quadratic", "-p", PROBLEM, "-o", str(tmp_path)]) == 1
    (one,) = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert one["verdict"] == "fails"
    assert one["alarms"] == [f"gradient on {PROBLEM} at initial, S = 1, B = 3: off"]
    assert "1 of 1 whole runs raised an alarm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-r", "0"], "--runs must be at least 1"),
        (["-e", "no-such"], "no-such"),
        (["-p", "no-such"], "no-such"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said, tmp_path, capsys):
    assert main([*arguments, "-o", str(tmp_path / "new")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "runs.jsonl").write_text("no run\n")
    assert main(["-o", str(tmp_path)]) == 2
    assert "is not a list of runs" in capsys.readouterr().err
