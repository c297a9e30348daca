"""Comparing two runs: what the intervals promise, what a guard refuses, and what is said beside the numbers."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks.cli import main
from elbograd.benchmarks.comparison.changes import changes
from elbograd.benchmarks.comparison.guard import parse_condition, violations
from elbograd.benchmarks.schema import row
from elbograd.benchmarks.store.lines import sealed
from elbograd.estimators.errors import UsageError
from scipy.stats import t as student

Z = 1.959964


def variance_row(name, value, low, high, **settings):
    case = {
        "benchmark": "variance",
        "problem": "vae",
        "num_samples": 2,
        "batch_size": 64,
        "step": 0,
        **settings,
    }
    return row(
        estimator=name, metric="variance", value=value, ci_low=low, ci_high=high, objective="elbo", **case
    )


def seconds_row(name, value, low, high):
    return {**variance_row(name, value, low, high), "metric": "seconds"}


def training_rows(name, values):
    return [
        row(benchmark="convergence", problem="vae", estimator=name, num_samples=2, seed=seed, step=step,
            metric="heldout_objective", value=value + (step - 100) / 50)
        for seed, value in enumerate(values)
        for step in (0, 100)
    ]  # fmt: skip


def of(rows):
    return pd.DataFrame(rows)


def only(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    (line,) = table.to_dict("records")
    return line


def test_a_ratio_s_interval_is_that_of_the_logarithms():
    """One comparison: no stretch; σ of log b − log a is √(0.1² + 0.2²)."""
    a = variance_row("e", 2.0, 2 * np.exp(-0.1 * Z), 2 * np.exp(0.1 * Z))
    b = variance_row("e", 3.0, 3 * np.exp(-0.2 * Z), 3 * np.exp(0.2 * Z))
    line = only(changes(of([a]), of([b]), ["variance"]))
    spread = Z * np.hypot(0.1, 0.2)
    np.testing.assert_allclose(
        [line["change"], line["change_low"], line["change_high"]],
        1.5 * np.exp([0, -spread, spread]),
        rtol=1e-6,
    )
    assert line["verdict"] == "no change shown"


def test_skewed_ends_stay_skewed():
    """The lower end is made of b's lower and a's upper half-width."""
    a, b = variance_row("e", 1.0, 0.99, 1.5), variance_row("e", 1.0, 0.5, 1.01)
    line = only(changes(of([a]), of([b]), ["variance"]))
    assert np.log(line["change_low"]) == pytest.approx(-np.hypot(np.log(2), np.log(1.5)))
    assert np.log(line["change_high"]) == pytest.approx(np.hypot(np.log(1.01), np.log(1 / 0.99)))


def test_differences_of_objectives_use_student_s_quantiles():
    a, b = training_rows("e", [1.0, 2.0, 3.0]), training_rows("e", [5.0, 7.0, 9.0])
    line = only(changes(of(a), of(b), ["heldout_objective"]))
    half = student.ppf(0.975, 2) * np.sqrt(1 / 3 + 4 / 3)
    np.testing.assert_allclose(
        [line["change"], line["change_low"], line["change_high"]], [5.0, 5 - half, 5 + half]
    )


def missed(comparisons, of_each, share):
    """In how many comparisons of unchanged ratios some interval excludes 1; ``share`` of alarms a ratio."""
    rng = np.random.default_rng(0)
    total = comparisons * of_each
    sides = []
    for _ in range(2):
        errors = rng.normal(0, 0.1, total)
        frame = of([variance_row("e", 1.0, 0.9, 1.1)]).loc[[0] * total].reset_index(drop=True)
        ends = {
            "value": np.exp(errors),
            "ci_low": np.exp(errors - 0.1 * Z),
            "ci_high": np.exp(errors + 0.1 * Z),
        }
        sides.append(frame.assign(estimator=[f"e{k}" for k in range(total)], **ends))
    table = changes(*sides, ["variance"], level=1 - share * total)
    comparison = table["estimator"].str.slice(1).astype(int) // of_each
    return comparison[table["verdict"].isin(["higher", "lower"])].nunique()


def test_intervals_hold_all_at_once():
    """Misses ~ binomial(400, ≤ 0.05): above 38 with probability 1e-4. Without the correction it is 34% of 400."""
    assert missed(400, 8, 0.05 / 8) <= 38
    assert missed(400, 8, 0.05) > 100


def test_what_cannot_be_compared_is_said():
    a = [
        variance_row("same", 1.0, 0.9, 1.1),
        variance_row("gone", 1.0, 0.9, 1.1),
        variance_row("bare", 1.0, None, None),
        variance_row("open", 1.0, 0.0, 2.0),
        variance_row("exact", 1e-30, 1e-30, 1e-30),
    ]
    b = [a[0], variance_row("new", 1.0, 0.9, 1.1), *a[2:4], variance_row("exact", 3e-30, 3e-30, 3e-30)]
    table = changes(of(a), of(b), ["variance"])
    found = dict(zip(table["estimator"], table["verdict"], strict=True))
    assert found == {
        "same": "identical",
        "gone": "only before",
        "new": "only after",
        "bare": "not compared",
        "open": "identical",
    }
    moved = changes(of([a[3]]), of([variance_row("open", 1.2, 0.0, 2.0)]), ["variance"])
    assert (only(moved)["change_low"], only(moved)["change_high"]) == (0.0, np.inf)


def test_settings_are_matched_and_the_last_row_counts():
    a = [variance_row("e", 1.0, 0.9, 1.1, num_samples=s) for s in (1, 2)]
    b = [variance_row("e", 9.0, 8.0, 10.0), variance_row("e", 1.0, 0.9, 1.2)]
    table = changes(of(a), of(b), ["variance"])
    assert list(zip(table["num_samples"], table["verdict"], strict=True)) == [
        (1, "only before"),
        (2, "no change shown"),
    ]


@pytest.mark.parametrize(
    ("condition", "low", "high", "met"),
    [
        ("variance>1.1", 1.11, 1.5, True),
        ("variance>1.1", 1.09, 9.0, False),
        ("variance<0.9", 0.5, 0.89, True),
        ("variance < 0.9", 0.5, 0.91, False),
    ],
)
def test_a_limit_is_passed_where_the_whole_interval_is_beyond_it(condition, low, high, met):
    line = {"metric": "variance", "verdict": "higher", "change_low": low, "change_high": high}
    assert bool(violations(of([line]), [parse_condition(condition)])) == met
    assert not violations(of([{**line, "metric": "seconds"}]), [parse_condition(condition)])


@pytest.mark.parametrize(
    "text", ["variance", "variance>", "variance=1", "noise>1", "variance>x", "variance>nan"]
)
def test_a_malformed_condition_is_refused_in_one_line(text):
    with pytest.raises(UsageError) as error:
        parse_condition(text)
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    def write(name, rows, environment=None):
        made = tmp_path / name
        made.mkdir()
        lines = [sealed([{**r, "case": r["case"] or f"case {k}"}]) for k, r in enumerate(rows)]
        (made / "rows.jsonl").write_bytes(b"".join(lines))
        if environment is not None:
            (made / "environment.json").write_text(json.dumps(environment))
        return str(made)

    return write


def compare(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["elbograd", "compare", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_a_guard_sets_the_exit_status(folder, monkeypatch, capsys):
    a = folder("a", [variance_row("e", 1.0, 0.99, 1.01, seed=0), seconds_row("e", 1.0, 0.9, 1.1)])
    worse = folder("b", [variance_row("e", 1.3, 1.28, 1.32, seed=0), seconds_row("e", 1.0, 0.9, 1.1)])
    code, out, _ = compare(monkeypatch, capsys, a, worse)
    assert code == 0
    assert "higher" in out
    assert "2 compared, at 95% for all at once: 1 higher, 1 identical" in out
    assert compare(monkeypatch, capsys, a, worse, "--fail-if", "variance>1.1")[0] == 1
    assert compare(monkeypatch, capsys, a, worse, "--fail-if", "variance>1.4")[0] == 0
    assert compare(monkeypatch, capsys, worse, a, "--fail-if", "variance>1.1")[0] == 0


def test_a_guard_does_not_pass_where_the_case_is_gone_or_failed(folder, monkeypatch, capsys):
    a = folder("a", [variance_row(n, 1.0, 0.99, 1.01) for n in ("kept", "lost")])
    failed = {**variance_row("lost", None, None, None), "status": "failed", "reason": "broken"}
    b = folder("b", [variance_row("kept", 1.0, 0.99, 1.01), failed])
    code, out, _ = compare(monkeypatch, capsys, a, b, "--fail-if", "variance>1.1")
    assert code == 1
    assert "was measured before and is not any more" in " ".join(out.split())
    nothing = folder("c", [failed])
    assert compare(monkeypatch, capsys, a, nothing, "--fail-if", "variance>1.1")[0] == 1


def test_other_machines_versions_and_seeds_are_pointed_out(folder, monkeypatch, capsys):
    rows = [variance_row("e", 1.0, 0.9, 1.1, seed=0), seconds_row("e", 1.0, 0.9, 1.1)]
    a = folder("a", rows, {"cpu": "one", "threads": 1, "packages": {"torch": "2.13"}, "command": "x"})
    b = folder("b", rows, {"cpu": "two", "threads": 1, "packages": {"torch": "2.14"}, "command": "y"})
    out = compare(monkeypatch, capsys, a, b)[1]
    assert "cpu differs: one before, two after" in out
    assert "torch differs: 2.13 before, 2.14 after" in out
    assert "times of different machines" in out
    assert "threads" not in out
    assert "command" not in out
    seeds = folder("c", [{**r, "seed": 7} for r in rows])
    out = compare(monkeypatch, capsys, a, seeds)[1]
    assert "the seeds differ" in out
    assert "not known of both" in out


def test_runs_with_nothing_in_common_are_refused_in_one_line(folder, monkeypatch, capsys):
    a = folder("a", [variance_row("e", 1.0, 0.9, 1.1)])
    b = folder("b", [variance_row("e", 1.0, 0.9, 1.1, problem="quadratic")])
    code, _, err = compare(monkeypatch, capsys, a, b)
    assert code == 2
    assert (
        err.strip() == f"elbograd: error: {a} and {b} have no measured case in common: they differ in problem"
    )
    assert compare(monkeypatch, capsys, a, a + "/none")[0] == 2
    code, _, err = compare(monkeypatch, capsys, a, b, "--metric", "noise")
    assert code == 2
    assert "choose from variance" in err


def test_published_results_and_throughput_files_are_read(monkeypatch, capsys):
    published = "results/published"
    code, out, _ = compare(monkeypatch, capsys, published, published, "--fail-if", "variance>1.0")
    assert code == 0
    assert "identical" in out
    code, out, _ = compare(
        monkeypatch, capsys, f"{published}/throughput.json", published, "-m", "steps_per_second"
    )
    assert code == 0
    assert "7 compared" in out
