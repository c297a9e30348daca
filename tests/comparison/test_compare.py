"""Comparing two runs: what the intervals promise, what a guard refuses, and what is said beside the numbers."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.comparison.changes import changes
from elbograd.benchmarks.comparison.command import _interval
from elbograd.benchmarks.comparison.guard import parse_condition, violations
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.statistics.intervals import median_interval
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
        "exact": "negligible",
    }
    moved = changes(of([a[3]]), of([variance_row("open", 1.2, 0.0, 2.0)]), ["variance"])
    assert (only(moved)["change_low"], only(moved)["change_high"]) == (0.0, np.inf)


def test_what_is_negligible_in_one_problem_is_not_in_another():
    """The largest variance of another problem, 1e15 times as large, hides nothing."""
    a = [variance_row("e", 1e-6, 0.9e-6, 1.1e-6), variance_row("f", 1e9, 0.9e9, 1.1e9, problem="other")]
    b = [variance_row("e", 1e-5, 0.9e-5, 1.1e-5), a[1]]
    assert only(changes(of(a), of(b), ["variance"]), estimator="e")["verdict"] == "higher"
    gone = [variance_row("e", 1e-30, 1e-30, 1e-30), variance_row("f", 1.0, 0.9, 1.1)]
    assert only(changes(of(gone), of(gone[1:]), ["variance"]), estimator="e")["verdict"] == "only before"


def test_from_and_to_a_variance_of_zero():
    """Ratios ∞ and 0, known to be so where the other's interval is clear of 0."""
    none, some = variance_row("e", 0.0, 0.0, 0.0), variance_row("e", 1.0, 0.9, 1.1)
    ends = ["change", "change_low", "change_high", "verdict"]
    worse, better = (only(changes(of([x]), of([y]), ["variance"])) for x, y in ((none, some), (some, none)))
    assert [worse[end] for end in ends] == [np.inf, np.inf, np.inf, "higher"]
    assert [better[end] for end in ends] == [0.0, 0.0, 0.0, "lower"]
    perhaps = variance_row("e", 1.0, 0.0, 2.0)
    assert only(changes(of([none]), of([perhaps]), ["variance"]))["verdict"] == "no change shown"
    unsure = variance_row("e", 0.0, 0.0, 2.0)
    assert only(changes(of([some]), of([unsure]), ["variance"]))["verdict"] == "not compared"


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.81, 1.53, 12.0), "1.81 [1.53, 12.0]"),
        ((2.0, 1.978, 2.023), "2.000 [1.978, 2.023]"),
        ((5.0, 0.0, np.inf), "5.0 [0, inf]"),
        ((np.inf, np.inf, np.inf), "inf"),
        ((0.0, 0.0, np.inf), "0 [0, inf]"),
        ((-0.013, -0.51, 0.49), "-0.013 [-0.51, 0.49]"),
        ((np.nan,) * 3, ""),
    ],
)
def test_an_interval_is_printed_so_that_its_verdict_can_be_seen(ends, text):
    assert _interval(*ends) == text


def timed(rng, count, timings):
    """Rows of so many estimators, all of the same true median."""
    rows = []
    for k in range(count):
        value, low, high = median_interval(list(rng.lognormal(0, 0.05, timings)))
        rows.append({**seconds_row(f"e{k}", value, low, high), "n": timings})
    return of(rows)


def test_five_timings_alarm_no_more_often_than_promised():
    """At 20 at once ≤ 5% of 200; above 20 has a chance of 1e-3. As if of many timings it is 8%, of 3 it is 70%."""
    rng = np.random.default_rng(0)
    frames = [timed(rng, 2000, 5) for _ in range(2)]

    def alarms(frames):
        # 2000 comparisons at the level that each of 20 has.
        table = changes(*frames, ["seconds"], level=1 - 0.05 / 20 * 2000)
        return table.loc[table["verdict"].isin(["higher", "lower"]), "estimator"].nunique()

    assert alarms(frames) <= 1
    assert alarms([frame.assign(n=1000) for frame in frames]) > 3


def test_too_few_repetitions_are_not_compared():
    for n, verdict in ((4, "not compared"), (5, "higher")):
        rows = [{**seconds_row("e", v, v * 0.999, v * 1.001), "n": n} for v in (1.0, 5.0)]
        line = only(changes(of(rows[:1]), of(rows[1:]), ["seconds"]))
        assert (line["verdict"], "5 timings" in line["reason"]) == (verdict, n < 5)
    rows = [{**variance_row("e", v, v, v), "n": 1} for v in (1.0, 5.0)]
    assert only(changes(of(rows[:1]), of(rows[1:]), ["variance"]))["verdict"] == "not compared"


def test_training_is_compared_at_the_same_number_of_steps():
    short, longer = training_rows("e", [1.0, 2.0, 3.0]), training_rows("e", [1.0, 2.0, 3.0])
    longer = [{**r, "step": 10 * r["step"]} for r in longer]
    verdicts = changes(of(short), of(longer), ["heldout_objective"])["verdict"]
    assert sorted(verdicts) == ["only after", "only before"]


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
    "text",
    [
        *("variance", "variance>", "variance=1", "noise>1", "variance>x", "variance>nan", "variance>=1.1"),
        *("variance>1_0", "variance>1e400", "variance>\u0661", "variance>0", "variance<-0.1", "variance>1<2"),
    ],
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


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (variance_row("e", 9.0, None, None), "variance could not be compared: no interval"),
        (variance_row("e", float("nan"), None, None), "was measured before and is not any more"),
        (variance_row("e", float("inf"), 1.0, float("inf")), "was measured before and is not any more"),
        (variance_row("e", -1.0, -2.0, -0.5), "variance could not be compared: a negative value"),
        (variance_row("e", 5.0, 6.0, 4.0), "a value outside of its interval"),
    ],
    ids=["bare", "nan", "inf", "negative", "reversed"],
)
def test_what_a_guard_cannot_judge_does_not_pass(folder, monkeypatch, capsys, after, said):
    other = variance_row("f", 2.0, 1.9, 2.1)
    a, b = folder("a", [variance_row("e", 1.0, 0.99, 1.01), other]), folder("b", [after, other])
    code, out, _ = compare(monkeypatch, capsys, a, b, "--fail-if", "variance>1.1")
    assert (code, said in " ".join(out.split())) == (1, True)
    code, _, err = compare(monkeypatch, capsys, a, b, "--fail-if", "heldout_objective<-0.1")
    assert code == 2
    assert err.strip().endswith(f"heldout_objective was not measured in {a}")


def test_a_mean_over_the_seeds_that_survived_does_not_pass(folder, monkeypatch, capsys):
    a, b = training_rows("e", [1.0, 2.0, 3.0, 4.0]), training_rows("e", [1.0, 2.0, 3.0, 4.0])
    b[1] |= {"status": "diverged", "value": None}
    a, b = folder("a", a), folder("b", b)
    for arguments, status in (((a, b), 1), ((b, a), 0)):
        code, out, _ = compare(monkeypatch, capsys, *arguments, "--fail-if", "heldout_objective<-9")
        assert code == status
    assert "1 seeds diverged before, 0 after" in " ".join(out.split())


def test_too_few_replicates_and_other_settings_are_pointed_out(folder, monkeypatch, capsys):
    few = {"reason": "not enough replicates (at least 9000)", "n": 20}
    a = folder("a", [variance_row("e", 1.0, 0.9, 1.1, parameters='{"route": "full", "step": 0}')])
    b = folder(
        "b", [variance_row("e", 5.0, 4.8, 5.2, parameters='{"route": "factorized", "step": 1}', **few)]
    )
    out = " ".join(compare(monkeypatch, capsys, a, b)[1].split())
    assert "higher *" in out
    assert "* not enough replicates, the interval is not to be trusted: e (after)" in out
    assert 'variance: route "full" before, "factorized" after' in out
    assert "step 0" not in out


def test_nothing_that_is_printed_moves_the_cursor(folder, monkeypatch, capsys):
    name = "e\x1b[31m\n|[b]<script>\x07"
    a = folder("a", [variance_row(name, 1.0, 0.99, 1.01)], {"cpu": "x\x1b[2J", "threads": 1})
    b = folder("b", [variance_row(name, 2.0, 1.99, 2.01)], {"cpu": "y\nz", "threads": 1})
    code, out, _ = compare(monkeypatch, capsys, a, b, "--fail-if", "variance>1.1")
    assert code == 1
    assert out.isascii() or all(c.isprintable() or c == "\n" for c in out)
    assert "failed: e [31m |[b]<script>, vae" in out
    assert "cpu differs: x [2J before, y z after" in out


def test_files_of_the_wrong_types_are_refused_in_one_line(folder, tmp_path, monkeypatch, capsys):
    good = folder("a", [variance_row("e", 1.0, 0.9, 1.1, seed=0)])
    strange = folder("strange", [])
    wrong = {**variance_row("e", 1.0, 0.9, 1.1), "case": "x", "estimator": ["x"], "value": {"a": 1}}
    (tmp_path / "strange" / "rows.jsonl").write_text(json.dumps({**wrong, "schema_version": 2}) + "\n")
    stats = {"min": 1, "median": 1, "iqr": 0, "ops": 1, "rounds": 1, "data": [0.0]}
    columns = ("case", "problem", "estimator", "num_samples", "batch_size", "latent_dim", "seed", "device")
    extra = dict.fromkeys((*columns, "dtype", "mode", "warmup_seconds", "peak_memory"))
    extra |= {"metric": "steps_per_second", "gpu_seconds": [], "note": ""}
    zero = {"benchmarks": [{"fullname": "x::t", "stats": stats, "extra_info": extra}]}
    contents = {
        "empty": {"benchmarks": []},
        "machine": {"benchmarks": [], "machine_info": ["x"]},
        "zero": zero,
    }
    files = []
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files.append(str(tmp_path / f"{name}.json"))
    for bad in (strange, *files):
        code, _, err = compare(monkeypatch, capsys, good, bad, "--fail-if", "variance>1.1")
        assert (code, len(err.strip().splitlines())) == (2, 1)
        assert bad in err


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


def test_a_kind_that_nothing_is_known_of_is_named_in_one_line(folder, monkeypatch, capsys):
    known = variance_row("e", 1.0, 0.9, 1.1)
    other = {**known, "benchmark": "test-only-toy", "metric": "gradient_norm"}
    code, out, _ = compare(monkeypatch, capsys, folder("a", [known, other]), folder("b", [known]))
    assert code == 0
    assert out.count("test-only-toy: no comparison is known for this kind of benchmark\n") == 1
    assert "1 compared" in out


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
