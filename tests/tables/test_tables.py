"""Tables: one line a case, numbers that can be read, names that break nothing."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks.report.present import present
from elbograd.benchmarks.rows.schema import COLUMNS, row
from elbograd.benchmarks.tables import summary, terminal_tables, write_tables
from elbograd.benchmarks.tables.latex import _CHARACTERS, escape
from rich.console import Console

ODD = "my|idea_$x$<b>.py:Mine[a=1]"
NAN = float("nan")


def case(benchmark: str, estimator: str, **settings: Any) -> dict[str, Any]:
    usual = {"problem": "vae", "num_samples": 2, "batch_size": 64, "latent_dim": 8}
    return {"benchmark": benchmark, "estimator": estimator, **usual, **settings}


def variance_rows(estimator: str, variance: float, reason: str = "", **settings: Any) -> list[dict[str, Any]]:
    common = case("variance", estimator, step=0, n=10_000, **settings)
    ends = {"ci_low": 0.96 * variance, "ci_high": 1.05 * variance}
    return [
        row(**common, metric="variance", value=variance, reason=reason, **ends),
        row(**common, metric="variance", parameter="0.weight", value=0.7 * variance),
        row(**common, metric="snr", value=0.42, ci_low=0.41, ci_high=0.44),
        row(**common, metric="cosine", value=0.7, ci_low=0.68, ci_high=0.72),
        row(**common, metric="kurtosis", value=4.25),
        row(**common, metric="minibatch_variance", value=1.5, ci_low=1.3, ci_high=1.8),
        row(**common, metric="heldout_gap", value=0.56, unit="nat"),
        *(
            row(**common, metric="eta_variance", parameter=name, value=share * variance)
            for name, share in (("mean", 1.0), ("log_scale", 3.0))
        ),
        *(
            row(**common, metric="variance_by_layer", parameter=name, value=share * variance)
            for name, share in (("0", 0.3), ("2", 0.7))
        ),
        row(**common, metric="bias_bound", value=0.0042),
        row(**common, metric="seconds", value=0.0009, ci_low=0.00088, ci_high=0.00093, unit="s"),
        row(**common, metric="evaluations", value=2.0),
    ]


def training_rows(estimator: str, ends: list[float], **settings: Any) -> list[dict[str, Any]]:
    rows = []
    for seed, end in enumerate(ends):
        common = case("convergence", estimator, seed=seed, **settings)
        status = {"status": "diverged", "reason": "the objective is not finite"} if np.isnan(end) else {}
        for step, value in ((0, -45.0), (1000, end)):
            here = {**common, "step": step, **(status if step else {})}
            rows.append(row(**here, metric="heldout_objective", value=value, unit="nat"))
            rows.append(row(**here, metric="seconds", value=step * 0.001, unit="s"))
        rows.append(row(**common, step=1000, metric="heldout_log_likelihood", value=end + 1, unit="nat"))
        rows.append(row(**common, step=1000, metric="learning_rate", value=0.003))
    return rows


def throughput_rows(estimator: str, **settings: Any) -> list[dict[str, Any]]:
    common = case("throughput", estimator, n=20, **settings)
    return [
        row(**common, metric="steps_per_second", value=1500.0, ci_low=1450.0, ci_high=1530.0),
        row(**common, metric="peak_memory", value=2.0**28, unit="B"),
    ]


def skipped(estimator: str) -> dict[str, Any]:
    why = {"status": "skipped", "reason": "needs at least 3 samples"}
    return row(**case("variance", estimator, step=0), metric="variance", value=NAN, **why)


ROWS = pd.DataFrame(
    [
        *variance_rows("score-function", 37.2, reason="not enough replicates (at least 52000)"),
        *variance_rows("reparameterization", 0.31),
        *variance_rows("exact", 1e-30),
        *variance_rows(ODD, 5.0),
        skipped("leave-one-out"),
        *training_rows("reparameterization", [-19.0, -19.2]),
        *training_rows("score-function", [-21.0, NAN]),
        *training_rows(ODD, [-20.0]),
        *throughput_rows("reparameterization"),
        *throughput_rows("reparameterization", mode="compiled"),
    ]
)


def printed(rows: pd.DataFrame, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in terminal_tables(rows):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# summary


def test_one_line_a_case_with_all_that_was_measured_of_it() -> None:
    table = summary(ROWS)
    assert len(table) == 6  # five estimators, one of them in a second mode
    line = table[(table["estimator"] == "reparameterization") & (table["mode"] == "eager")].squeeze()
    expected = {
        "variance": 0.31,
        "variance_low": 0.96 * 0.31,
        "variance_high": 1.05 * 0.31,
        "snr": 0.42,
        "snr_low": 0.41,
        "cosine": 0.7,
        "kurtosis": 4.25,
        "minibatch_variance_high": 1.8,
        "heldout_gap": 0.56,
        "bias_bound": 0.0042,
        "milliseconds": 0.9,
        "milliseconds_high": 0.93,
        "evaluations": 2,
        "work_normalized_variance": 0.31 * 0.0009,
        "replicates": 10_000,
        "heldout_objective": -19.1,
        "heldout_log_likelihood": -18.1,
        "training_seconds": 1.0,
        "learning_rate": 0.003,
        "steps_per_second": 1500,
        "peak_memory": 2.0**28,
    }
    assert {name: line[name] for name in expected} == pytest.approx(expected)
    assert line["note"] == ""


def test_the_measured_work_normalized_variance_wins_over_the_product() -> None:
    rows = variance_rows("a", 2.0)
    rows.append(row(**case("variance", "a", step=0), metric="work_normalized_variance", value=7.0))
    assert summary(pd.DataFrame(rows))["work_normalized_variance"].tolist() == [7.0]


def test_the_interval_of_a_final_objective_is_over_seeds() -> None:
    line = summary(ROWS).set_index(["estimator", "mode"]).loc[("reparameterization", "eager")]
    # Student's t for two seeds: 12.7062 standard errors of 0.1.
    assert line["heldout_objective_high"] - line["heldout_objective"] == pytest.approx(1.27062, abs=1e-4)


def test_a_diverged_seed_counts_and_does_not_enter_the_mean() -> None:
    line = summary(ROWS).set_index("estimator").loc["score-function"]
    assert (line["seeds"], line["diverged"], line["heldout_objective"]) == (2, 1, -21.0)
    assert np.isnan(line["heldout_objective_low"])
    assert "diverged: the objective is not finite" in line["note"]
    assert "not enough replicates (at least 52000)" in line["note"]


def test_a_skipped_case_keeps_its_line_and_reason() -> None:
    line = summary(ROWS).set_index("estimator").loc["leave-one-out"]
    assert np.isnan(line["variance"])
    assert line["note"] == "skipped: needs at least 3 samples"


def test_a_note_of_the_minibatch_variance_alone_says_so() -> None:
    few = "not enough data in the batch (at least 1000)"
    rows = variance_rows("a", 2.0)
    rows.append(
        row(**case("variance", "b", step=0, n=64), metric="minibatch_variance", value=1.5, reason=few)
    )
    rows += variance_rows("b", 2.0)[:2]
    notes = summary(pd.DataFrame(rows)).set_index("estimator")["note"]
    assert notes.to_dict() == {"a": "", "b": f"minibatch variance: {few}"}


def test_cases_are_sorted_by_setting_and_then_by_variance() -> None:
    rows = [
        r
        for d in (16, 2)
        for name, v in (("b", 1.0), ("a", 2.0))
        for r in variance_rows(name, v, problem=f"vae[latent_dim={d}]", latent_dim=d)
    ]
    table = summary(pd.DataFrame(rows))
    assert list(zip(table["latent_dim"], table["estimator"], strict=True)) == [
        (2, "b"),
        (2, "a"),
        (16, "b"),
        (16, "a"),
    ]


def test_a_parameter_s_share_is_no_case_of_its_own() -> None:
    assert summary(pd.DataFrame(variance_rows("a", 2.0)))["variance"].tolist() == [2.0]


def test_nullable_types_make_no_difference() -> None:
    pd.testing.assert_frame_equal(summary(ROWS), summary(ROWS.convert_dtypes()))


# files


def test_files_hold_a_table_a_benchmark_and_unrounded_numbers(tmp_path: Path) -> None:
    paths = write_tables(ROWS, tmp_path / "new")
    assert [p.name for p in paths] == [
        "tables.md",
        "variance.csv",
        "breakdown.csv",
        "convergence.csv",
        "throughput.csv",
        *(f"{name}.tex" for name in ("variance", "breakdown", "convergence", "throughput")),
        "summary.csv",
    ]
    page = paths[0].read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Gradient variance",
        "## Signal and noise",
        "## Training",
        "## Throughput",
    ]
    assert "37.2 [35.7, 39.1]" in page
    assert "1500 [1450, 1530]" in page
    table = pd.read_csv(paths[1], keep_default_na=False, na_values=[""])
    assert set(table["estimator"]) == set(ROWS.loc[ROWS["benchmark"] == "variance", "estimator"])
    assert table.set_index("estimator").loc["exact", "variance"] == 1e-30


def test_every_line_of_a_markdown_table_has_as_many_cells(tmp_path: Path) -> None:
    page = write_tables(ROWS, tmp_path)[0].read_text(encoding="utf-8")
    for table in (block for block in page.split("\n\n") if block.startswith("|")):
        cells = {line.replace(r"\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1
    assert r"`my\|idea_$x$<b>.py:Mine[a=1]`" in page


def test_what_is_the_same_for_all_is_said_once_and_what_nobody_measured_not_at_all(tmp_path: Path) -> None:
    page = write_tables(pd.DataFrame(variance_rows("a", 2.0)[:2]), tmp_path)[0].read_text(encoding="utf-8")
    assert "vae · D = 8 · B = 64 · S = 2 · initialization · cpu · float32" in page
    assert "| estimator | variance |" in page


def test_a_deterministic_estimator_has_variance_zero_in_print(tmp_path: Path) -> None:
    page = write_tables(ROWS, tmp_path)[0].read_text(encoding="utf-8")
    assert next(line for line in page.splitlines() if line.startswith("| `exact`")).startswith(
        "| `exact` | 0 |"
    )


@pytest.mark.parametrize("rows", [pd.DataFrame(), pd.DataFrame(columns=list(COLUMNS))])
def test_no_rows_make_no_tables(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert write_tables(rows, tmp_path / "new") == []
    assert not (tmp_path / "new").exists()
    assert terminal_tables(rows) == []
    assert len(summary(rows)) == 0


def other_rows(estimator: str, benchmark: str = "test-only", **values: Any) -> dict[str, Any]:
    common = case(benchmark, estimator, metric="gradient_norm", unit="nat")
    return row(**{**common, "ci_low": 1.9, "ci_high": 2.1, "value": 2.0, **values})


def test_a_benchmark_without_columns_of_its_own_has_a_table_of_what_it_measured_first(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("value", "ci_low", "ci_high"), None)
    rows = pd.DataFrame(
        [
            other_rows("b", parameter="0.weight", metric="share"),
            other_rows("b"),
            other_rows("b", metric="seconds", parameters='{"timer": 1}'),
            other_rows("a", value=2.05),
            other_rows("c", metric="", status="skipped", reason="needs at least 3 samples", **nothing),
        ]
    )
    paths = {path.name: path for path in write_tables(rows, tmp_path)}
    assert [*paths] == ["tables.md", "test-only.csv", "test-only.tex"]
    page = paths["tables.md"].read_text(encoding="utf-8")
    assert page.startswith("## Test only\n")
    assert "| estimator | gradient norm (nat) | note |" in page
    assert [line for line in page.splitlines() if line.startswith("| `")] == [
        "| `a` | 2.05 [1.90, 2.10] |  |",
        "| `b` | 2.00 [1.90, 2.10] |  |",
        "| `c` |  | skipped: needs at least 3 samples |",
    ]
    assert pd.read_csv(paths["test-only.csv"])["gradient_norm"].tolist()[:2] == [2.05, 2.0]
    assert "2.05 [1.90, 2.10]" in printed(rows)


def test_its_cases_are_told_apart_by_what_they_differ_in(tmp_path: Path) -> None:
    measured = [(1, "x", 0), (1, "x", 1), (2, "x", 0)]
    rows = pd.DataFrame(
        other_rows(
            "a", seed=seed, parameters=f'{{"power": {power}, "base": "{base}"}}', value=power + seed / 10
        )
        for power, base, seed in measured
    )
    write_tables(rows, tmp_path)
    table = pd.read_csv(tmp_path / "test-only.csv")
    assert table["settings"].tolist() == ["power=1, seed=0", "power=1, seed=1", "power=2, seed=0"]
    assert table["gradient_norm"].tolist() == [1.0, 1.1, 2.0]


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "summary"])
def test_a_benchmark_s_name_names_no_file_but_its_own(name: str, tmp_path: Path) -> None:
    assert write_tables(pd.DataFrame([other_rows("a", benchmark=name)]), tmp_path / "tables") == []
    assert [*tmp_path.iterdir()] == []


def test_only_tables_that_were_written_are_pointed_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = row(benchmark="reproduce", problem="vae", metric="claim", value=1.0)
    present(pd.DataFrame([claim]), tmp_path)
    assert capsys.readouterr().out == "no tables\n"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("status", ["skipped", "failed"])
def test_cases_that_never_ran_are_told_with_the_reason(status: str, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [row(**case("variance", "a"), metric="variance", value=NAN, status=status, reason="out of memory")]
    )
    assert f"{status}: out of memory" in write_tables(rows, tmp_path)[0].read_text(encoding="utf-8")
    assert f"a: {status}: out of memory" in printed(rows)


def test_a_long_note_or_name_does_not_widen_a_table() -> None:
    rows = variance_rows("very-" * 40 + "long", 1.0, reason="because " * 40)
    assert max(len(line) for line in printed(pd.DataFrame(rows)).splitlines()) <= 80


def test_the_breakdown_has_a_column_for_each_part(tmp_path: Path) -> None:
    ratio = row(
        **case("variance", "reparameterization", step=0),
        metric="variance_ratio",
        parameter="score-function",
        value=0.31 / 37.2,
        ci_low=0.0082,
        ci_high=0.0085,
    )
    rows = pd.concat([ROWS, pd.DataFrame([ratio])])
    paths = {path.name: path for path in write_tables(rows, tmp_path)}
    table = pd.read_csv(paths["breakdown.csv"]).set_index("estimator")
    assert table.index.tolist() == ["exact", "reparameterization", ODD, "score-function"]  # by variance
    line = table.loc["score-function"]
    assert line["eta_variance[mean]"] == pytest.approx(37.2)
    assert line["eta_variance[log_scale]"] == pytest.approx(3 * 37.2)
    assert line["variance_by_layer[2]"] == pytest.approx(0.7 * 37.2)
    assert line[["cosine", "cosine_low", "cosine_high"]].tolist() == [0.7, 0.68, 0.72]
    (ratio,) = pd.read_csv(paths["ratios.csv"]).to_dict("records")
    assert (ratio["estimator"], ratio["relative_to"]) == ("reparameterization", "score-function")
    assert ratio["variance_ratio"] == pytest.approx(0.31 / 37.2)
    page = paths["tables.md"].read_text(encoding="utf-8").partition("## Signal and noise")[2]
    assert "| `reparameterization` | 0.00833 [0.00820, 0.00850] | `score-function` |" in page
    lines = [line for line in page.partition("## Ratios")[0].splitlines() if line.startswith("| `")]
    assert len(lines) == 3  # exact has no noise
    assert (
        lines[0]
        == "| `reparameterization` | 0.420 [0.410, 0.440] | 0.700 [0.680, 0.720] | 4.25 | 1.50 [1.30, 1.80] "
        "| mean 25%, log\\_scale 75% | 2 70% | 0.560 |"
    )
    text = printed(rows).partition("Signal and noise")[2]
    assert "0.00833 [0.00820, 0.00850]  score-function" in text
    heading, line = (next(x for x in text.splitlines() if x.startswith(s)) for s in ("estimator", "score"))
    assert heading.split()[1:] == ["SNR", "cosine", "kurtosis", "minibatch", "of", "η"]
    assert line.split()[1:] == ["0.420", "0.700", "4.25", "1.50", "mean", "25%"]


def test_a_run_without_a_breakdown_has_no_table_of_it(tmp_path: Path) -> None:
    rows = pd.DataFrame(variance_rows("a", 2.0)[:2])
    assert [path.name for path in write_tables(rows, tmp_path)] == [
        "tables.md",
        "variance.csv",
        "variance.tex",
        "summary.csv",
    ]
    assert len(terminal_tables(rows)) == 1


def test_a_latex_table_has_rules_and_as_many_cells_in_every_line(tmp_path: Path) -> None:
    paths = {path.name: path.read_text(encoding="utf-8") for path in write_tables(ROWS, tmp_path)}
    for name in ("variance.tex", "breakdown.tex", "convergence.tex", "throughput.tex"):
        comments = [line for line in paths[name].splitlines() if line.startswith("%")]
        first, *lines = [line for line in paths[name].splitlines() if line not in comments]
        columns = first.removeprefix(r"\begin{tabular}{").removesuffix("}")
        assert set(columns) <= {"l", "r"}
        assert [line for line in lines if not line.endswith(r" \\")] == [
            r"\toprule",
            r"\midrule",
            r"\bottomrule",
            r"\end{tabular}",
        ]
        for line in lines:
            if line.endswith(r" \\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
        assert "37.2 [35.7, 39.1]" in paths["variance.tex"]


@pytest.mark.parametrize("text", [ODD, r"50% & \input{x} ~^_#{}", "a\nb\\\\", '≤ × ĝ "`|', "[0pt]*"])
def test_latex_prints_text_as_it_stands(text: str) -> None:
    inside = escape(text)
    # What is left when the commands for characters are taken back is the text, on one line.
    back = {command: character for character, command in _CHARACTERS.items()}
    commands = "|".join(re.escape(command) for command in sorted(back, key=len, reverse=True))
    assert re.sub(commands, lambda found: back[found[0]], inside) == " ".join(text.split())
    rest = re.sub(commands, "", inside)
    assert not set(rest) & set("\\{}%&$#_~^")
    assert rest.isascii()


# terminal


def test_sweeps_are_on_the_page_and_not_on_the_terminal(tmp_path: Path) -> None:
    base = [
        {**r, "step": step} for s in (1, 4) for step in (0, 9) for r in variance_rows("a", 2.0, num_samples=s)
    ]
    swept = variance_rows("a", 3.0, num_samples=4, problem="vae[latent_dim=32]", latent_dim=32)
    swept += variance_rows("a", 4.0, num_samples=4, batch_size=16)
    between = [r | {"step": 5} for r in variance_rows("a", 5.0, num_samples=4)]
    rows = pd.DataFrame([*base, *swept, *between])
    titles = [str(table.title).splitlines()[0] for table in terminal_tables(rows)]
    assert titles == [
        f"{what} · vae · {where}"
        for what in ("Gradient variance", "Signal and noise")
        for where in ("initialization", "after 9 steps")
    ]
    page = write_tables(rows, tmp_path)[0].read_text(encoding="utf-8")
    assert page.count("| `vae[latent_dim=32]` |") == 2
    assert page.count("after 5 steps") == 2


def test_the_latent_dimension_is_written_in_one_way() -> None:
    rows = pd.DataFrame(variance_rows("a", 3.0, problem="vae[latent_dim=32]", latent_dim=32))
    title = str(terminal_tables(rows)[0].title)
    assert title.splitlines()[0] == "Gradient variance · vae · initialization"
    assert "D = 32" in title


def test_tables_fit_into_a_terminal() -> None:
    text = printed(ROWS)
    assert max(len(line) for line in text.splitlines()) <= 80
    for expected in ("37.2 [35.7, 39.1]", "0.42%", "33.5", "-19.1 [-20.4, -17.8]", "1 of 2", "256"):
        assert expected in text, expected
    assert "score-function: not enough replicates (at least 52000)" in text


def test_a_case_that_never_ran_has_a_note_and_no_line_and_its_problem_s_sizes() -> None:
    rows = pd.DataFrame([*variance_rows("a", 2.0), {**skipped("b"), "batch_size": None, "latent_dim": None}])
    table, _ = terminal_tables(rows)
    assert table.row_count == 1
    assert str(table.caption) == "b: skipped: needs at least 3 samples"
    assert summary(rows)["batch_size"].tolist() == [64, 64]


def test_a_narrow_terminal_shortens_names_and_no_numbers() -> None:
    text = printed(pd.DataFrame(variance_rows("moving-average-baseline", 37.2)), width=56)
    assert "37.2 [35.7, 39.1]" in text
    assert "…" in text
    assert max(len(line) for line in text.splitlines()) <= 56


def test_names_are_printed_as_they_are() -> None:
    assert ODD in printed(ROWS, width=100)


def test_a_table_for_each_problem_and_step() -> None:
    rows = [*variance_rows("a", 1.0), *variance_rows("a", 2.0, problem="quadratic", latent_dim=1)]
    rows += [r | {"step": 500} for r in variance_rows("a", 3.0)]
    titles = [str(table.title).splitlines() for table in terminal_tables(pd.DataFrame(rows))]
    assert [first for first, _ in titles][:3] == [
        "Gradient variance · quadratic · initialization",
        "Gradient variance · vae · initialization",
        "Gradient variance · vae · after 500 steps",
    ]
    assert titles[0][1] == "D = 1 · B = 64 · S = 2 · cpu · float32"


def test_tables_need_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    ROWS.to_json(tmp_path / "rows.json", orient="records")
    code = f"""
import sys
from pathlib import Path
import pandas as pd
from elbograd.benchmarks.tables import summary, terminal_tables, write_tables
rows = pd.read_json({str(tmp_path / "rows.json")!r})
assert len(summary(rows)) and terminal_tables(rows) and write_tables(rows, Path({str(tmp_path)!r}))
assert not {{"torch", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_estimator_is_said_once_to_need_more_replicates() -> None:
    few = "not enough replicates (at least {})"
    needed = {("a", 1): 900, ("a", 2): 10_000, ("a", 4): 2000, ("b", 1): 800}
    rows = [
        r for (name, s), n in needed.items() for r in variance_rows(name, 2.0, few.format(n), num_samples=s)
    ]
    table = terminal_tables(pd.DataFrame(rows))[0]
    assert str(table.caption).splitlines() == [f"a: {few.format(10_000)}", f"b: {few.format(800)}"]
